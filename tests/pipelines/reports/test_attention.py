"""Attention of the class token: against torch's own, on both layouts, and drawn for the clips of a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines import attention as script
from pipelines.reports import attention
from pipelines.reports.attention import class_attention, draw, targets_of
from tests.helpers.fakes import FakeStore, leave_run, predictions_of, record_of
from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames
from vlmodels import methods
from vlmodels.errors import UserError


def method_of(name, joint=False):
    torch.manual_seed(2)
    method = methods.get(name)(tiny_backbone(joint=joint), None, CLASSES)
    method.set_classes(CLASSES)
    return disturb(method).eval()


@pytest.mark.parametrize("joint", [False, True])
def test_it_is_what_torch_computes_for_the_block(joint):
    method, frames = method_of("zeroshot", joint), tiny_frames(2, 3)
    block, seen = method.backbone.block("video", 3).module, {}
    hook = block.ln_1.register_forward_hook(lambda _m, _i, out: seen.update(x=out))
    _, found = class_attention(method, frames)
    hook.remove()
    with torch.no_grad():
        _, weights = block.attn(seen["x"], seen["x"], seen["x"], need_weights=True)
    own = weights[:, 0, 1:]
    rows, columns = method.backbone.spec.grid
    want = own.reshape(2, rows, columns, 3).permute(0, 3, 1, 2) if joint else own.reshape(2, 3, rows, columns)
    np.testing.assert_allclose(found, want.numpy(), atol=1e-6)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", ["msta", "lora", "omniclip", "viltclip", "aim"])
def test_looking_changes_nothing(name, joint):
    method, frames = method_of(name, joint), tiny_frames(2, 3)
    with torch.inference_mode():
        before = method(frames).logits
    output, found = class_attention(method, frames)
    torch.testing.assert_close(output.logits, before)
    assert found.shape == (2, 3, *method.backbone.spec.grid)
    assert (found > 0).all()
    assert (found.sum((1, 2, 3)) <= 3.001).all()


def test_lora_attends_by_its_own_weight():
    method, frames = method_of("lora"), tiny_frames(2, 3)
    _, learned = class_attention(method, frames)
    _, plain = class_attention(method_of("zeroshot"), frames)
    assert np.abs(learned - plain).max() > 1e-3


def store_of(clips, bad=()):
    status = ["corrupt" if clip in bad else "ok" for clip in clips]
    return SimpleNamespace(manifest=pa.table({"clip_id": list(clips), "status": status}), uri="data")


def choose(run, *rest):
    return attention.choose(run, targets_of(run), *rest)


def test_clips_are_spread_over_classes_and_ingested(tmp_path):
    record = record_of(sets={"base": ("a", "b"), "novel": ("c", "d", "e")})
    run = leave_run(tmp_path, record, predictions_of(record))
    name, classes, chosen = choose(run, store_of([f"clip{i}" for i in range(8)], bad=["clip1"]), "novel", 4)
    assert (name, classes) == ("novel", ["c", "d", "e"])
    assert chosen == [("clip0", 0), ("clip2", 2), ("clip4", 1), ("clip3", 0)]
    assert choose(run, store_of(["clip3"]), None, 9)[0::2] == ("base", [("clip3", 1)])


def test_what_is_missing_is_said(tmp_path):
    run = leave_run(tmp_path, record_of())
    with pytest.raises(UserError, match=r"no test set 'nove'.* base, novel"):
        choose(run, store_of(["clip0"]), "nove", 2)
    with pytest.raises(UserError, match="no test clip"):
        choose(run, store_of(["other"]), None, 2)
    with pytest.raises(UserError, match="not a folder of a finished run"):
        choose(tmp_path, store_of(["clip0"]), None, 2)
    retrieval = leave_run(tmp_path, record_of("retrieval"))
    with pytest.raises(UserError, match="retrieval; attention needs a protocol with classes"):
        choose(retrieval, store_of(["clip0"]), None, 2)
    (run / "predictions.npz").write_bytes((run / "predictions.npz").read_bytes()[:-30])
    with pytest.raises(UserError, match="not a folder of a finished run"):
        targets_of(run)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .* is a file"):
        script.main(["--run", "x", "--data", "y", "--out", str(tmp_path / "file")])


def test_a_picture_for_each_clip(tmp_path):
    models = {"zero-shot": method_of("zeroshot"), "msta": method_of("msta")}
    store = FakeStore(count=2, segments=4, size=32)
    page = draw(models, store, [("clip0", 0), ("clip1", 2)], ["<b>", "two", "three"], tmp_path / "out", title="t")
    text = page.read_text()
    assert "clip1.png" in text
    assert "clip2.png" in text
    assert "<b> (clip0)" not in text
    assert (tmp_path / "out" / "clip2.png").stat().st_size > 1000
    with pytest.raises(UserError, match="--clips 0"):
        script.main(["--run", "x", "--data", "y", "--clips", "0"])
    assert json.dumps(text)
