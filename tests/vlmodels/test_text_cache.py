"""Frozen text features that the methods of a process share: what is shared, what must not be, and how much."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.pair_ranks import in_two_ranks
from tests.helpers.tiny_clip import CLASSES, DESCRIPTIONS, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels import methods, text_cache
from vlmodels.classifier import description_features

TEXTS = torch.zeros(1, 1, dtype=torch.long)


def encoded(backbone):
    """Rows of texts that this backbone encodes from now on, one number for each time that it does."""
    rows = []
    backbone.model.token_embedding.register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    return rows


def features(name, *, joint=False, config=None, seed=0):
    """Class features of a method on a backbone of its own, and how often that ran its text tower for them."""
    method = tiny_method(methods.get(name), config, joint=joint, seed=seed)
    rows = encoded(method.backbone)
    return method.eval().encode_classes(), rows


@torch.no_grad()
def test_equal_backbones_encode_equal_texts_once_whatever_the_method():
    first, rows = features("zeroshot")
    assert rows == [3]
    for name in ("zeroshot", "st_adapter", "aim", "lora", "linear"):
        found, rows = features(name)
        assert rows == [], name
        assert torch.equal(found, first)
    template = methods.get("omniclip").Config(template=methods.get("zeroshot").Config().template)
    found, rows = features("omniclip", config=template)  # which reads the features before they are normalised
    assert rows == []
    assert torch.equal(found, first)


@torch.no_grad()
def test_other_weights_texts_and_arithmetic_share_nothing():
    features("zeroshot")
    for other in ({"seed": 1}, {"joint": True}):  # other weights, if not of the text tower alone
        assert features("zeroshot", **other)[1] == [3]
    assert features("zeroshot", config=methods.get("zeroshot").Config(template="{}"))[1] == [3]
    with torch.autocast("cpu", torch.bfloat16):
        assert features("zeroshot")[1] == [3]
        assert features("zeroshot")[1] == []
    half = tiny_backbone()
    rows, tokens = encoded(half.half()), half.tokenize(["a", "b"])
    tiny_backbone().frozen_text(tokens)
    assert half.frozen_text(tokens).dtype == torch.float16
    assert rows == [2]
    assert features("zeroshot")[1] == []


@torch.no_grad()
@pytest.mark.parametrize("name", ["msta", "viltclip"])
def test_features_of_descriptions_and_scenarios_are_shared_and_those_of_captions_are_not(name):
    counts = []
    for _ in range(2):
        method = tiny_method(methods.get(name))
        rows = encoded(method.backbone)
        labels = torch.tensor([0, 1])
        out = method(tiny_frames())
        before = len(rows)
        method.losses(out, labels)
        counts.append(len(rows) - before)
        if name == "viltclip":
            before, kept = len(rows), text_cache.TEXT_CACHE.nbytes
            method.caption_features(["a caption", "another"])
            assert (len(rows) - before, text_cache.TEXT_CACHE.nbytes) == (2, kept)
    assert counts == [len(method.description_kinds) if name == "msta" else 1, 0]


def test_the_frozen_layers_below_the_first_adapter_are_shared():
    config = methods.get("msta").Config(dims=16, layers="3", dropout=0.0, alpha=0.0)
    losses, runs = [], []
    for layers in ("3", "3", "2-3"):
        method = tiny_method(methods.get("msta"), config if layers == "3" else methods.get("msta").Config(dims=16))
        runs.append(encoded(method.backbone))
        losses.append(train(method, 3))
    assert [len(rows) for rows in runs[:2]] == [1, 0]
    assert losses[0] == losses[1]
    assert runs[2]


@torch.no_grad()
def test_a_caller_cannot_change_what_others_get():
    first, _ = features("zeroshot")
    before = first.clone()
    backbone = tiny_backbone()
    tokens = backbone.tokenize(list(CLASSES))
    backbone.frozen_text(tokens).zero_()
    assert backbone.frozen_text(tokens).any()
    prefix = backbone.text_prefix(tokens, 2)
    prefix.hidden.zero_()
    assert backbone.text_prefix(tokens, 2).hidden.any()
    first.zero_()
    assert torch.equal(features("zeroshot")[0], before)


def test_weights_that_train_or_were_written_to_are_not_those_of_the_digest():
    features("zeroshot")
    tuned = tiny_method(methods.get("finetune"))
    train(tuned, 1)
    tuned.eval().requires_grad_(False)  # as if it had been frozen after all
    rows = encoded(tuned.backbone)
    with torch.no_grad():
        assert not torch.equal(tuned.encode_classes(), features("zeroshot")[0])
    description_features(tuned.backbone, DESCRIPTIONS["spatial"], CLASSES)
    assert rows
    backbone = tiny_backbone()
    tokens = backbone.tokenize(list(CLASSES))
    whole = backbone.frozen_text(tokens)
    with torch.no_grad():
        backbone.text_norm.weight.mul_(2)
    assert not torch.equal(backbone.frozen_text(tokens), whole)
    assert torch.equal(tiny_backbone().frozen_text(tokens), whole)


@torch.no_grad()
def test_a_copy_that_is_changed_does_not_pass_for_the_original():
    backbone = tiny_backbone()
    tokens = backbone.tokenize(list(CLASSES))
    whole = backbone.frozen_text(tokens)
    twin = copy.deepcopy(backbone)
    assert torch.equal(twin.frozen_text(tokens), whole)
    twin.model.text_projection.mul_(2)
    assert not torch.equal(twin.frozen_text(tokens), whole)


def test_what_was_shared_under_inference_mode_serves_training():
    config = methods.get("msta").Config(dims=16, layers="3")
    first, second = (tiny_method(methods.get("msta"), config) for _ in range(2))
    rows = encoded(second.backbone)
    with torch.inference_mode():
        first.eval().encode_classes()
    train(second, 1)
    assert len(rows) == 2  # descriptions of two kinds; the class prompts' lower layers come from the first


def test_backbones_without_values_are_run_as_they_are():
    with torch.device("meta"):
        backbone = tiny_backbone()
        tokens = torch.empty(2, 5, dtype=torch.long)
    assert backbone.frozen_text(tokens).shape == (2, 40)
    assert text_cache.TEXT_CACHE.nbytes == 0


def test_the_most_recently_used_are_kept_up_to_a_limit():
    kept, computed = text_cache.TextCache(limit=1000), []

    def get(key, floats=100):
        def compute(_):
            computed.append(key)
            return torch.full((floats,), float(ord(key)))

        found = kept.get(key, TEXTS, compute)
        assert found.shape == (floats,)
        assert (found == ord(key)).all()

    for key in "abacab":  # two have room
        get(key)
    assert computed == list("abcb")
    get("d", floats=1000)
    assert kept.nbytes == 800
    get("b")
    assert computed == list("abcbd")


def test_threads_may_use_the_cache_at_once():
    kept = text_cache.TextCache(limit=4000)

    def ask():
        for number in range(300):
            assert (
                kept.get(number % 30, TEXTS, lambda _, n=number: torch.full((50,), float(n % 30))) == number % 30
            ).all()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.nbytes == 200 * len(kept) <= 4000  # 50 numbers of 4 bytes each


# ------------------------------------------------------------------------------------------- divided among ranks


def texts(count):
    return [f"video {i} of a {'very ' * (i % 3)}red bike" for i in range(count)]


def encode_in_rank(rank, _world):
    """What two ranks get of texts that they ask for alike and otherwise, with the rows that each encodes itself."""
    backbone = tiny_backbone()
    many, more, few = (backbone.tokenize(texts(count)) for count in (70, 71, 63))
    rows, found = encoded(backbone), {}

    def note(name, features):
        found[name] = (features, rows.copy())
        rows.clear()

    note("alone", backbone.frozen_text(many))
    text_cache.TEXT_CACHE.clear()
    with text_cache.encode_together():
        note("divided", backbone.frozen_text(many))
        note("uneven", backbone.text_prefix(more, 2).hidden)
        note("few", backbone.frozen_text(few))
        sentences = {name: texts(40) for name in CLASSES}
        note("described", description_features(backbone, sentences, CLASSES))
    note("kept", backbone.frozen_text(many))
    if rank == 0:
        text_cache.TEXT_CACHE.clear()
    with text_cache.encode_together():
        note("kept by one", backbone.frozen_text(many))
    note("kept by both", backbone.frozen_text(many))
    text_cache.TEXT_CACHE.clear()
    with text_cache.encode_together():
        if rank == 0:
            note("other", backbone.frozen_text(more))
        note("after other", backbone.frozen_text(many))
        if rank == 1:
            note("other", backbone.frozen_text(more))

    def compute(some):
        if rank == 1:
            raise ValueError("out of memory")
        return some.float()

    try:
        with text_cache.encode_together():
            note("failed elsewhere", text_cache.TEXT_CACHE.get("failing", many, compute))
            note("left elsewhere", backbone.frozen_text(more[:, 1:]))
    except ValueError as error:
        note("failed", str(error))
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return in_two_ranks(encode_in_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("divided", [35]),
        ("uneven", [36]),
        ("few", [63]),
        ("described", [60]),
        ("kept", []),
        ("kept by one", [35]),
        ("kept by both", []),
    ],
)
def test_ranks_that_ask_together_encode_a_share_each_and_get_the_same(ranks, name, rows):
    (first, own), (second, others) = (found[name] for found in ranks)
    assert own == others == rows
    assert torch.equal(first, second)


def test_divided_features_are_those_of_one_process_in_order(ranks):
    backbone = tiny_backbone()
    many, more = backbone.tokenize(texts(70)), backbone.tokenize(texts(71))
    alone = backbone.frozen_text(many)
    prefix = backbone.text_prefix(more, 2).hidden
    described = description_features(backbone, {name: texts(40) for name in CLASSES}, CLASSES)
    for found in ranks:
        for name in ("alone", "divided", "kept", "kept by one", "kept by both", "after other"):
            assert torch.allclose(found[name][0], alone, atol=1e-5), name
        assert torch.allclose(found["uneven"][0], prefix, atol=1e-5)
        assert torch.allclose(found["other"][0], backbone.frozen_text(more), atol=1e-5)
        assert torch.allclose(found["described"][0], described, atol=1e-5)


def test_ranks_that_ask_otherwise_or_fail_keep_no_other_rank_waiting(ranks):
    first, second = ranks
    assert first["other"][1] == second["other"][1] == [71]
    assert first["after other"][1] == second["after other"][1] == [70]
    assert second["failed"][0] == "out of memory"
    assert len(first["failed elsewhere"][0]) == 70
    assert first["left elsewhere"][1] == [71]


@given(st.integers(1, 300), st.integers(1, 70))
def test_shares_are_equal_and_leave_no_row_out(count, world):
    size = -(-count // world)
    rows = []
    for first, new in text_cache.row_shares(count, world):
        assert 0 <= first <= count - size
        rows += range(new, first + size)
    assert rows == list(range(count))


def test_without_a_group_each_process_encodes_alone():
    backbone = tiny_backbone()
    rows = encoded(backbone)
    with text_cache.encode_together():
        backbone.frozen_text(backbone.tokenize(texts(70)))
    assert rows == [70]
