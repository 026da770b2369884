"""Tokenizers of Hugging Face: counted, cut and placed as those of CLIP, and read from local files without a network."""

from __future__ import annotations

import pytest
import torch

from pipelines.config.schema import BackboneConfig, TrainConfig
from pipelines.planning.costs import step_cost
from pipelines.training.build import build_method
from tests.helpers.tiny_tokenizers import KINDS, add_model, save_text_config, save_tokenizer, save_weights
from vlmodels.clip import create, needed_by
from vlmodels.describe import describe
from vlmodels.errors import UserError
from vlmodels.hub import has_config, has_tokenizer, hub_folder
from vlmodels.masked_words import WordMasker
from vlmodels.methods.prompts import Prompts
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.tokenizers import HuggingFaceTokenizer, first_word, token_count

BERT = {"clean": "whitespace", "strip_sep_token": True}


def tokenizer(folder, kind, length=16):
    save_tokenizer(folder, kind)
    return HuggingFaceTokenizer(folder, length, BERT if kind == "bert" else {"clean": "canonicalize"})


@pytest.fixture
def backbone(tmp_path, monkeypatch):
    def make(kind="t5", **text):
        config = add_model(monkeypatch, **text)
        save_tokenizer(tmp_path / "weights", kind)
        save_weights(config, tmp_path / "weights" / "w.safetensors")
        return create("tiny-hf", weights=tmp_path / "weights" / "w.safetensors", num_frames=2)

    return make


@pytest.mark.parametrize("length", [16, 32, 64])
@pytest.mark.parametrize(("kind", "first", "own"), [("t5", 0, 1), ("gemma", 0, 1), ("bert", 1, 2)])
def test_all_tokens_are_counted_however_many(tmp_path, kind, first, own, length):
    ours = tokenizer(tmp_path, kind, length)
    assert (first_word(ours), token_count(ours, ""), token_count(ours, "a")) == (first, own, own + 1)
    assert token_count(ours, " ".join(["a"] * 100)) >= 100 + own
    ids = ours(["a video of a dog", "a " * 100])
    assert ids.shape == (2, length)
    assert int((ids[0] != 0).sum()) == token_count(ours, "a video of a dog") - (kind == "bert")
    assert bool((ids[1, :-1] != 0).all())
    assert int(ids[1, -1]) == (0 if kind == "bert" else 1), "a text that is cut keeps its end; BERT's is stripped"


def test_punctuation_that_the_model_never_saw_is_not_counted(tmp_path):
    ours = tokenizer(tmp_path, "t5")
    assert token_count(ours, "A dog!, quickly...") == token_count(ours, "a dog quickly")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_do_not_fit_are_named(backbone, kind):
    ours = backbone(kind)
    method = ZeroShot(ours, ZeroShot.Config())
    fits, long = "a dog walking", " ".join(["a"] * 40)
    assert ours.fits(fits)
    assert not ours.fits(long)
    assert method.cut_captions([fits, long]) == [long]
    assert method.prompt_problems([fits]) == []
    assert long in method.prompt_problems([fits, long])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_learned_prompts_stand_where_their_placeholders_do(backbone, kind):
    ours = backbone(kind)
    method = Prompts(ours, Prompts.Config(text_tokens=3), ["walking", "kicking"])
    count, start = ours.count_tokens, ours.first_word
    assert count(method.class_prompt("walking")) == 2 + count("x walking")
    seen = []
    ours.add("text", 0, "embed", lambda x, _: seen.append(x.detach().clone()) or x)  # behind the prompts' own hook
    method.set_classes(["walking", "kicking"])
    method.encode_classes()
    words = ours.word_embeddings[ours.tokenize([method.class_prompt("walking")])[0]]
    learned = dict(method.named_parameters())["text_prompts.1.tokens"]
    assert torch.equal(seen[-1][0], torch.cat([words[:start], learned, words[start + 3 :]]))


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_words_are_labelled_where_their_mask_stands(backbone, kind):
    ours = backbone(kind)
    name = "person walking dog kicking quickly"
    hide = WordMasker([name], "a video of {}", template_words=True)
    words, found = {number: word for word, number in hide.vocabulary.items()}, set()
    for _ in range(40):
        tokens, labels = hide([name], ours)
        text, hidden = f"a video of {name}".split(), [words[int(label)] for label in labels[labels >= 0]]
        for word in hidden:
            text[text.index(word)] = "mask"
        expected = ours.tokenize([" ".join(text)])[0]
        assert torch.equal(tokens[0], expected)
        before = [" ".join(text[:at]) for at, word in enumerate(text) if word == "mask"]
        places = [ours.first_word + ours.count_tokens(words) - ours.count_tokens("") for words in before]
        assert (labels[0] >= 0).nonzero().flatten().tolist() == places
        found |= {*hidden}
    assert len(found) > 3


def test_files_beside_the_weights_need_no_network(backbone, monkeypatch):
    import huggingface_hub

    def no_network(*_args, **_kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.setattr(huggingface_hub, "HfApi", no_network)
    ours = backbone()
    assert ours.encode_text(ours.tokenize(["a dog", "walking"])).shape == (2, 16)


def test_a_plan_reads_them_too_and_says_what_is_missing(tmp_path, backbone):
    backbone()
    file = tmp_path / "weights" / "w.safetensors"
    config = TrainConfig(method="zeroshot", backbone=BackboneConfig(name="tiny-hf", pretrained=str(file)))
    method = build_method(config, frames=2, classes=["walking"], meta=True)
    assert method.backbone.fits("a dog")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (file.parent / name).unlink()
    method = build_method(config, frames=2, classes=["walking"], meta=True)
    with pytest.raises(UserError, match=r"nobody/no-such-tokenizer.*tokenizer.json, tokenizer_config.json.*beside"):
        method.backbone.fits("a dog")


@pytest.mark.parametrize(
    ("words", "message"), [(4, "more than the 4 words"), (120, "knows 100 words, of the 120 of the model")]
)
def test_another_models_tokenizer_is_refused(tmp_path, monkeypatch, words, message):
    config = add_model(monkeypatch, vocab_size=words)
    save_tokenizer(tmp_path, "bert")
    save_weights(config, tmp_path / "w.safetensors")
    ours = create("tiny-hf", weights=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        ours.tokenize(["a dog"])


def test_settings_without_words_are_no_tokenizer(tmp_path):
    """Transformers would make one that reads every word as the unknown one."""
    save_tokenizer(tmp_path, "t5")
    assert has_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert not has_tokenizer(tmp_path)


def test_a_part_of_the_hubs_files_in_the_cache_is_not_taken_for_all(tmp_path, monkeypatch):
    import huggingface_hub

    part, whole = tmp_path / "part", tmp_path / "whole"
    save_tokenizer(whole, "t5")
    part.mkdir()
    save_text_config(part)

    def snapshot(_name, *, local_files_only=False, **_):
        return str(part if local_files_only else whole)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    assert hub_folder("somebody/tower", has_config) == part
    assert hub_folder("somebody/tower", has_tokenizer) == whole
    save_tokenizer(part, "t5")
    assert hub_folder("somebody/tower", has_tokenizer) == part
    (whole / "tokenizer.json").unlink()
    (part / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"the hub has tokenizer_config.json.*beside the weight file"):
        hub_folder("somebody/tower", has_tokenizer)


def test_a_damaged_file_is_named(tmp_path, backbone):
    ours = backbone()
    (tmp_path / "weights" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be read.*tokenizer.json"):
        ours.tokenize(["a dog"])


def test_a_text_tower_of_hugging_face_takes_its_configuration_from_beside_the_weights(tmp_path, monkeypatch):
    save_tokenizer(tmp_path, "t5")
    save_text_config(tmp_path)
    tower = {"hf_model_name": str(tmp_path), "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    config = add_model(monkeypatch, **tower, hf_model_pretrained=False)
    model = save_weights(config, tmp_path / "w.safetensors")
    add_model(monkeypatch, **tower | {"hf_model_name": "nobody/no-such-tower"}, hf_model_pretrained=False)
    ours = create("tiny-hf", weights=tmp_path / "w.safetensors")
    ids = ours.tokenize(["a dog", "a person walking"])
    assert torch.equal(ours.encode_text(ids), model.eval().encode_text(ids))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"nobody/no-such-tower.*config.json.*beside"):
        create("tiny-hf", weights=tmp_path / "w.safetensors")


def test_costs_of_a_text_tower_of_hugging_face_are_counted(tmp_path, monkeypatch):
    import huggingface_hub

    save_text_config(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    add_model(monkeypatch, hf_model_name="somebody/tower", hf_proj_type="linear", hf_pooler_type="mean_pooler")
    length, width, inner, embed = 16, 8, 16, 16
    layer = length * (4 * width * width + 2 * width * inner) + 2 * length * length * width
    expected = (layer + width * embed) / 1e9
    assert describe("finetune", "tiny-hf", frames=2)["gmacs_text_per_class"] > 0
    config = TrainConfig(method="finetune", backbone=BackboneConfig(name="tiny-hf"))
    method = build_method(config, frames=2, classes=["a"], meta=True)
    monkeypatch.setattr(type(method.backbone), "tokenize", lambda _, texts: torch.ones(len(texts), length).long())
    cost = step_cost(method, 2, ["a dog", "walking"]).text
    assert cost.forward == pytest.approx(2 * expected)
    assert cost.training > 2.5 * cost.forward
    assert cost.kept > 0


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("toy", ()),
        ("ViCLIP-B-16", ()),
        ("ViT-B-16-quickgelu", ()),
        ("PE-Core-B-16", ("timm",)),
        ("ViT-H-14-CLIPA", ("transformers", "sentencepiece")),
        ("ViT-B-16-SigLIP2", ("timm", "transformers", "sentencepiece")),
    ],
)
def test_packages_are_needed_by_those_backbones_alone_whose_parts_they_have(name, packages):
    assert needed_by(name) == packages
