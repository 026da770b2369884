from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method
from vlmodels import methods
from vlmodels.checkpoint import load_adapter, load_tensors, save_adapter, save_tensors
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.adaptformer import AdaptFormer
from vlmodels.methods.msta import MSTA


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
