from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pipelines.storage.files import file_sha256
from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method
from tests.helpers.tiny_tokenizers import add_model, save_tokenizer, save_weights
from vlmodels import methods
from vlmodels.checkpoint import load_adapter, load_into, load_tensors, save_adapter, save_tensors
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.adaptformer import AdaptFormer
from vlmodels.methods.msta import MSTA
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.toy import TOY_WEIGHTS


def read_facts(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["vidadapt"])


def rewrite_facts(path, change):
    """Change an adapter's metadata in place."""
    about = read_facts(path)
    change(about)
    save_tensors(path, load_tensors(path), {"vidadapt": json.dumps(about)})


@pytest.fixture
def saved(tmp_path):
    method = disturb(tiny_method(MSTA, MSTA.Config(dims=8, layers="2-3")))
    return method, save_adapter(tmp_path, method, extra={"digest": "abc"})


def test_the_file_holds_the_adapter_alone_and_says_what_it_is(saved):
    method, path = saved
    assert path.stat().st_size < 100_000
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(method.adapter_state_dict())
        about = json.loads(file.metadata()["vidadapt"])
    assert about["method"] == "msta"
    assert about["config"]["layers"] == "2-3"
    assert about["backbone"] == {"name": "tiny", "weights": "", "frames": 4, "digest": method.backbone.digest}
    loaded = load_adapter(path.parent, tiny_backbone())
    assert (loaded.classes, loaded.extra) == (CLASSES, {"digest": "abc"})
    assert not loaded.method.training
    assert loaded.method.classes == CLASSES


def test_a_random_backbone_cannot_be_recreated(saved):
    with pytest.raises(UserError, match=r"'tiny' with random weights.*pass that backbone"):
        load_adapter(saved[1].parent)


def test_the_backbone_comes_back_by_name_and_weights(tmp_path):
    torch.manual_seed(0)
    base = create("toy", weights="toy")
    method = disturb(AdaptFormer(base, AdaptFormer.Config(dims=4)))
    method.set_classes(CLASSES)
    save_adapter(tmp_path, method)
    loaded = load_adapter(tmp_path)
    frames = tiny_frames(1, 2, size=(48, 48))
    with torch.no_grad():
        assert torch.equal(loaded.method(frames).logits, method.eval()(frames).logits)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_damaged_file_is_one_clear_error(saved, keep):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"adapter\.safetensors is damaged.*copy or train it again"):
        load_adapter(path.parent, tiny_backbone())


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match="not an adapter of this package"):
        load_adapter(tmp_path, tiny_backbone())
    with pytest.raises(UserError, match=r"no adapter\.safetensors in"):
        load_adapter(tmp_path / "elsewhere", tiny_backbone())


def test_a_later_format_is_refused(saved):
    method, path = saved
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["vidadapt"])
    assert about["format"] == 1
    save_tensors(path, method.adapter_state_dict(), {"vidadapt": json.dumps(about | {"format": 2})})
    with pytest.raises(UserError, match="format 2; this version reads 1"):
        load_adapter(path.parent, tiny_backbone())


def test_settings_that_ask_for_memory_without_end_are_refused(saved):
    path = saved[1]
    rewrite_facts(path, lambda about: about["config"].update(dims=10**9))
    with pytest.raises(UserError, match=r"adapter\.safetensors.*far larger than its own"):
        load_adapter(path.parent, tiny_backbone())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(saved, value):
    method, path = saved
    name, tensor = next(iter(method.adapter_state_dict().items()))
    about = read_facts(path)
    changed = torch.full_like(tensor, value)
    del about["tensors"]  # as an earlier version writes it
    save_tensors(path, method.adapter_state_dict() | {name: changed}, {"vidadapt": json.dumps(about)})
    with pytest.raises(UserError, match=f"not finite, in {name}; copy or train it again"):
        load_adapter(path.parent, tiny_backbone())
    with pytest.raises(UserError, match="not finite"):
        load_into(method, path.read_bytes())


def test_a_changed_value_is_found(saved):
    path = saved[1]
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="values have changed since it was saved"):
        load_adapter(path.parent, tiny_backbone())


def test_whole_numbers_are_no_weights(saved):
    method, path = saved
    name, tensor = next(iter(method.adapter_state_dict().items()))
    state = method.adapter_state_dict() | {name: torch.zeros(tensor.shape, dtype=torch.int64)}
    about = read_facts(path)
    del about["tensors"]
    save_tensors(path, state, {"vidadapt": json.dumps(about)})
    with pytest.raises(UserError, match=r"other types: .* holds torch\.int64"):
        load_adapter(path.parent, tiny_backbone())


@pytest.fixture
def on_a_file(tmp_path):
    """An adapter on the toy whose weights are a file."""
    weights = tmp_path / "weights" / "toy.safetensors"
    weights.parent.mkdir()
    shutil.copy(TOY_WEIGHTS, weights)
    method = disturb(AdaptFormer(create("toy", weights=weights), AdaptFormer.Config(dims=4)))
    method.set_classes(CLASSES)
    return weights, save_adapter(tmp_path, method)


def test_a_weight_file_is_found_again_by_its_hash(on_a_file):
    weights, path = on_a_file
    recorded = read_facts(path)["backbone"]
    assert recorded["file"] == {"bytes": weights.stat().st_size, "sha256": file_sha256(weights)}
    assert load_adapter(path).method.backbone.spec.weights == str(weights)


def test_a_weight_file_that_changed_or_left_needs_the_users_word(on_a_file):
    weights, path = on_a_file
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"toy\.safetensors' have changed since.*--weights FILE"):
        load_adapter(path)
    moved = weights.rename(weights.with_name("moved.safetensors"))
    moved.write_bytes(content)
    with pytest.raises(UserError, match=r"are not on this machine.*--weights FILE"):
        load_adapter(path)
    assert load_adapter(path, weights=moved).method.backbone.spec.weights == str(moved)


def test_a_file_that_only_an_adapter_names_is_not_opened(on_a_file, tmp_path):
    _, path = on_a_file
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # to open it would wait for ever
    for named in (str(fifo), "/dev/zero", __file__, "../toy.safetensors", "toy\0"):
        rewrite_facts(path, lambda about, named=named: about["backbone"].update(weights=named))
        with pytest.raises(UserError, match=r"not on this machine|have changed since|cannot be read"):
            load_adapter(path)


@pytest.fixture
def on_a_tokenizer(tmp_path, monkeypatch):
    """An adapter on weights in a file, with a Hugging Face tokenizer beside it."""
    config = add_model(monkeypatch)
    weights = tmp_path / "weights" / "w.safetensors"
    save_tokenizer(weights.parent)
    save_weights(config, weights)
    method = ZeroShot(create("tiny-hf", weights=weights), ZeroShot.Config(template="{}"))
    method.set_classes(["a dog walking", "a person kicking"])
    (tmp_path / "package" / "run").mkdir(parents=True)
    return weights, save_adapter(tmp_path / "package" / "run", method)


def test_a_tokenizer_is_known_by_its_files(on_a_tokenizer, tmp_path):
    weights, path = on_a_tokenizer
    files = [weights.parent / name for name in ("tokenizer.json", "tokenizer_config.json")]
    recorded = read_facts(path)["backbone"]["beside"]
    assert recorded == {f.name: {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in files}
    assert load_adapter(path).method.backbone.fits("a dog")
    elsewhere = tmp_path / "other" / "w.safetensors"
    elsewhere.parent.mkdir()
    shutil.copy(weights, elsewhere)
    where = load_adapter(path, weights=elsewhere).method.backbone.tokenizer.source
    assert where == weights.parent, "as there is none beside the other file"


def test_a_tokenizer_that_changed_or_left_is_asked_for(on_a_tokenizer):
    weights, path = on_a_tokenizer
    save_tokenizer(weights.parent, "bert")
    with pytest.raises(UserError, match=r"tokenizer that is not here.*tokenizer.json \(SHA-256 .*beside .*w.safe"):
        load_adapter(path)
    (weights.parent / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer that is not here"):
        load_adapter(path, weights=weights)


def test_weights_and_tokenizer_that_travel_are_found_beside_the_run(on_a_tokenizer):
    weights, path = on_a_tokenizer
    for file in list(weights.parent.iterdir()):
        shutil.move(file, path.parent.parent / file.name)
    backbone = load_adapter(path).method.backbone
    assert backbone.tokenizer.source == path.parent.parent
    assert backbone.fits("a dog")


def test_a_path_is_no_name_of_a_tokenizers_file(on_a_tokenizer):
    _, path = on_a_tokenizer
    rewrite_facts(path, lambda about: about["backbone"]["beside"].update({"../x": {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(UserError, match="no file of a tokenizer"):
        load_adapter(path)


def test_an_earlier_adapter_names_a_file_without_its_hash(on_a_file):
    weights, path = on_a_file
    rewrite_facts(path, lambda about: about["backbone"].pop("file"))
    with pytest.raises(UserError, match=r"opened only by its hash.*--weights FILE"):
        load_adapter(path)
    assert load_adapter(path, weights=weights).classes == CLASSES


def test_a_tag_comes_before_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").write_text("a file")
    assert create("toy", weights="toy").spec.weights == "toy"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(2)})

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        save_tensors(path, {"a": torch.zeros(2)})
    assert torch.equal(load_tensors(path)["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    with pytest.raises(UserError, match="cannot be written: No such file"):
        save_tensors(tmp_path / "missing" / "x.safetensors", {})


def test_a_classifiers_rows_keep_their_names_and_one_built_for_none_stays_so(tmp_path):
    linear = methods.get("linear")
    method = tiny_method(linear)
    method.set_classes([*CLASSES[::-1]])
    save_adapter(tmp_path, method, classes=CLASSES[::-1])
    assert load_adapter(tmp_path, tiny_backbone()).classes == CLASSES
    plain = linear(tiny_backbone())
    plain.set_classes(CLASSES)
    save_adapter(tmp_path, plain)
    loaded = load_adapter(tmp_path, tiny_backbone())
    assert (loaded.method.head, loaded.classes) == (None, CLASSES)
