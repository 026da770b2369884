"""Words of class prompts and their masks, on real class lists where these are at hand."""

from __future__ import annotations

import csv

import pytest
import torch

from tests.helpers.tiny_clip import tiny_backbone
from vlmodels.masked_words import WordMasker, vocabulary_form, word_loss

NAMES = ["Pushing [something], (without) it falling", "child's_play", "doing a somersault"]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="module")
def tokenize(backbone):
    return backbone.tokenize


def masker(names=NAMES, template="a video of {}", template_words=True):
    return WordMasker(names, template, template_words=template_words)


def real_names(folder, file):
    with (folder / "labels" / file).open() as lines:
        return [row["name"] for row in csv.DictReader(lines)]


def test_vocabulary_is_alphabetical_in_small_letters_without_outer_punctuation():
    words = ["a", "child's", "doing", "falling", "it", "of", "play", "pushing", "somersault", "something", "video"]
    found = masker(template="A video of {}.").vocabulary
    assert list(found.items()) == [(word, number) for number, word in enumerate([*words, "without"])]


def test_words_of_the_real_lists(shared_data):
    """K400: the release's file has 520 lines, of which one is the header of its label list."""
    assert len(masker(real_names(shared_data, "kinetics_400_labels.csv")).vocabulary) == 519
    words = masker(real_names(shared_data, "ssv2_labels.csv")).vocabulary
    assert {"without", "moving", "wringing", "hand", "something"} <= words.keys()
    assert not [word for word in words if word != vocabulary_form(word)]


def test_a_fifth_of_the_words_is_masked_whole(backbone, tokenize, shared_data):
    """Each label stands at a mask's token; the other words keep their pieces."""
    names = real_names(shared_data, "ssv2_labels.csv")[::4] + real_names(shared_data, "kinetics_400_labels.csv")[::8]
    hide = masker(names)
    mask = int(tokenize(["mask"])[0, 1])
    words = {number: word for word, number in hide.vocabulary.items()}
    for name in names:
        tokens, labels = hide([name], backbone)
        prompt = f"a video of {name}".lower().split()
        if len(tokenize([" ".join(prompt)])[0]) == 20:
            continue  # beyond the tiny context
        places = (labels[0] >= 0).nonzero().flatten().tolist()
        assert len(places) == max(1, round(0.2 * len(prompt)))
        assert all(tokens[0, place] == mask for place in places)
        assert all(words[int(labels[0, place])] in map(vocabulary_form, prompt) for place in places)
        hidden = [words[int(labels[0, place])] for place in places]
        left = list(prompt)
        for word in hidden:
            del left[[vocabulary_form(w) for w in left].index(word)]
        kept = [t for place, t in enumerate(tokens[0].tolist()) if place not in places]
        whole = tokenize([" ".join(left)])[0].tolist()
        assert sorted(kept) == sorted(whole)


def test_labels_stand_where_the_word_was_however_many_pieces_it_had(backbone, tokenize):
    torch.manual_seed(0)
    hide, seen = masker(["doing a somersault backwards"]), set()
    pieces = len(tokenize(["somersault"])[0]) - 2
    assert pieces > 1
    first = {"video": {2}, "of": {3}, "doing": {4}, "a": {1, 5}, "somersault": {6}, "backwards": {6 + pieces}}
    words = {number: word for word, number in hide.vocabulary.items()}
    for _ in range(40):
        _, labels = hide(["doing a somersault backwards"], backbone)
        (place,) = (labels[0] >= 0).nonzero().flatten().tolist()
        word = words[int(labels[0, place])]
        assert place in first[word]
        seen.add(word)
    assert seen == first.keys()


@pytest.mark.parametrize(("words", "count"), [(1, 1), (7, 1), (8, 2), (12, 2), (13, 3)])
def test_the_number_masked_is_rounded_and_at_least_one(words, count, backbone):
    name = " ".join(["jump"] * words)
    assert (masker([name], "{}")([name], backbone)[1] >= 0).sum() == count


def test_template_words_can_be_spared(backbone):
    for template in ("a video of {}.", "{}, a video", "action:{} in a video"):
        hide = masker(["doing_sports"], template, template_words=False)
        words = {number: word for word, number in hide.vocabulary.items()}
        seen = set()
        for _ in range(20):
            labels = hide(["doing_sports"], backbone)[1]
            seen |= {words[number] for number in labels[labels >= 0].tolist()}
        assert seen == {"action:doing" if "action" in template else "doing", "sports"}


def test_words_beyond_the_vocabulary_are_never_masked(backbone, tokenize):
    hide = masker(["jump"], "{}")
    assert (hide(["run fast"], backbone)[1] == -100).all()
    for _ in range(10):
        tokens, labels = hide(["run and jump"], backbone)
        assert (labels >= 0).nonzero().tolist() == [[0, 3]]
        assert tokens[0, 3] == tokenize(["mask"])[0, 1]


def test_a_prompt_beyond_the_context_is_cut_with_its_labels(backbone, tokenize):
    name = " ".join(["jump"] * 40)
    hide = masker([name], "{}")
    for _ in range(10):
        tokens, labels = hide([name], backbone)
        assert tokens.shape == labels.shape == (1, 20)
        assert torch.equal(labels[0] >= 0, tokens[0] == tokenize(["mask"])[0, 1])


def test_the_draw_follows_torchs_seed(backbone):
    def draw(seed):
        torch.manual_seed(seed)
        return masker()(NAMES * 4, backbone)[1].tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_the_loss_is_the_mean_over_labels_and_0_without_any():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    labels = torch.tensor([[-100, 4, -100], [0, -100, -100]])
    expected = -(logits.log_softmax(-1)[0, 1, 4] + logits.log_softmax(-1)[1, 0, 0]) / 2
    assert torch.allclose(word_loss(logits, labels), expected)
    none = word_loss(logits, torch.full((2, 3), -100))
    none.backward()
    assert none == 0
    assert not logits.grad.any()
