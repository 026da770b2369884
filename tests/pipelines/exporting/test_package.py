"""The exported folder: its files, what they say, and the example in it, run without this package."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.exporting.package import ExportRequest, export, new_folder
from pipelines.exporting.record import KIND
from pipelines.toyworld.world import write_video
from tests.helpers.tiny_clip import disturb
from vlmodels import methods
from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.predictor import Predictor

CLASSES = ("clapping", "driving car", "Früchte schälen, roh")
WITHOUT_US = """
import runpy, sys
for name in ("torch", "vlmodels", "pipelines", "cv2", "PIL", "torchvision", "einops", "onnx"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def trained(folder, name, backbone="toy", classes=CLASSES, **views):
    """A run's folder as the predictor needs it, whose views are given."""
    torch.manual_seed(1)
    cls = methods.get(name)
    method = disturb(cls(create(backbone, weights="toy", num_frames=4), None, classes), scale=0.05)
    folder.mkdir()
    save_adapter(folder, method, classes=classes)
    (folder / "config.json").write_text(json.dumps({"data": views}))
    return folder


def video(path, height, width, frames=19):
    ramp = torch.arange(width) * 255 // width
    noise = torch.randint(80, (frames, height, width, 3), generator=torch.Generator().manual_seed(5))
    moving = torch.stack([ramp.roll(9 * number) for number in range(frames)])
    write_video((noise + moving[:, None, :, None] * 2 // 3).to(torch.uint8), path)
    return path


def run_example(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_US, str(folder / "example.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        timeout=120,
    )


def by_example(folder, *arguments):
    done = run_example(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return {label: float(share) / 100 for share, label in (line.split(" %  ") for line in done.stdout.splitlines())}


def names_of_this_machine(folder):
    """Files that hold a path of this checkout, of the run or of the interpreter."""
    paths = [str(path).encode() for path in (Path(__file__).parents[3], folder.parent, Path(sys.prefix))]
    return [file.name for file in folder.iterdir() if any(path in file.read_bytes() for path in paths)]


def by_predictor(run, path, labels=None):
    return {found.label: found.probability for found in Predictor.from_run(run)(path, labels)}


@pytest.mark.parametrize(
    ("method", "backbone", "views", "size"),
    [
        ("lora", "toy", {"clips": 2, "crops": 3, "sampling": "dense", "stride": 3}, (50, 132)),
        ("linear", "toy-viclip", {"clips": 3, "crops": 1}, (120, 90)),
    ],
)
def test_the_example_answers_as_the_predictor(method, backbone, views, size, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    run, path = trained(tmp_path / "run", method, backbone, **views), video(tmp_path / "v.mp4", *size)
    out = export(ExportRequest("a run", run, tmp_path / "out", "onnx"), say=lambda _: None)
    wanted = by_predictor(run, path)
    assert by_example(out, path) == pytest.approx(wanted, abs=2e-3)  # it prints tenths of a percent
    assert max(wanted.values()) > 0.4
    assert not names_of_this_machine(out)
    if method == "lora":
        labels = ("kicking", "swimming", "clapping", "juggling")
        other = ExportRequest("a run", run, tmp_path / "new", "classes", labels)
        new = export(other, say=lambda _: None)
        assert by_example(out, path, new / "classes.npz") == pytest.approx(by_predictor(run, path, labels), abs=2e-3)
        page = tmp_path / "page.mp4"
        page.write_text("<html>not found</html>")
        for named, arguments in ((page, [page]), ("none.mp4", ["none.mp4"]), ("none.npz", [path, "none.npz"])):
            done = run_example(out, *arguments)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
            assert done.stderr.startswith(f"{named}: ")


def test_the_folder_says_what_it_is(tmp_path):
    run = trained(tmp_path / "run", "lora", clips=2)
    request = ExportRequest("models:/lora@champion", run, tmp_path / "out", "torch", merged=True)
    lines = []
    out = export(request, say=lines.append)
    about = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert {path.name for path in out.iterdir()} == {*about["files"], "export.json"}
    assert about["model"] == "models:/lora@champion"
    assert about["method"] == "lora"
    assert about["merged_into_weights"] is True
    assert about["backbone"]["digest"] == create("toy", weights="toy").digest
    assert about["classes"]["names"] == list(CLASSES)
    assert about["inputs"]["frames"]["shape"] == ["views", 4, 48, 48, 3]
    assert about["check"]["torch"]["features"] < about["check"]["tolerance"]
    assert any("merged" in line for line in lines)
    known = np.load(out / "classes.npz")
    assert tuple(known["names"]) == CLASSES
    assert np.linalg.norm(known["features"], axis=1) == pytest.approx(1)
    loaded = torch.export.load(out / "video.pt2")
    assert all("visual" in name or "logit_scale" in name for name in loaded.state_dict), "the text tower stays here"
    module = loaded.module()
    features, logits = module(torch.zeros(1, 4, 48, 48, 3, dtype=torch.uint8), torch.from_numpy(known["features"]))
    assert (features @ torch.from_numpy(known["features"]).T * known["logit_scale"]).allclose(logits, atol=1e-4)
    assert not names_of_this_machine(out)
    assert export(dataclasses.replace(request, format="classes", merged=False), say=lambda _: None) == out
    assert {path.name for path in out.iterdir()} == {"classes.npz", "export.json"}


def test_classes_alone_are_refused_for_a_classifier(tmp_path):
    run = trained(tmp_path / "run", "linear")
    with pytest.raises(UserError, match="classifier is part of the graph"):
        export(ExportRequest("a run", run, tmp_path / "out", "classes"), say=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_model_without_classes_has_features(tmp_path):
    run = trained(tmp_path / "run", "zeroshot", classes=())
    out = export(ExportRequest("a run", run, tmp_path / "out", "torch"), say=lambda _: None)
    assert json.loads((out / "export.json").read_text())["outputs"].keys() == {"features"}
    assert not (out / "classes.npz").exists()
    with pytest.raises(UserError, match="--labels"):
        export(ExportRequest("a run", run, tmp_path / "other", "classes"), say=lambda _: None)


def test_an_export_is_replaced_and_other_folders_are_left(tmp_path):
    out = tmp_path / "out"
    for content in ("1", "2"):
        with new_folder(out) as part:
            (part / "export.json").write_text(json.dumps({"kind": KIND, "files": {"a": {}}}))
            (part / "a").write_text(content)
        assert (out / "a").read_text() == content
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"), new_folder(out):
        pass
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"out", "file"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "other", "files": {}}', '{"kind": 1, "files": 2}'])
def test_a_folder_with_another_export_json_is_left(text, tmp_path):
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UserError, match="no export wrote"), new_folder(tmp_path):
        pass
    assert (tmp_path / "export.json").read_text() == text


def fill_and_fail(out, error):
    with new_folder(out) as part:
        (part / "a").touch()
        raise error


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_after_an_error_nothing_new_and_nothing_lost(error, tmp_path):
    for out in (tmp_path / "new", tmp_path / "empty"):
        if out.name == "empty":
            out.mkdir()
        with pytest.raises((UserError, KeyboardInterrupt)):
            fill_and_fail(out, error)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
