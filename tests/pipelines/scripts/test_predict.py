"""``predict.py``: models and videos that are not there, and the prediction after a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.scripts import run_copy
from tests.helpers.videofiles import write_video
from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.zeroshot import ZeroShot


def test_predict_from_a_registry_that_is_not_there_makes_none(tmp_path):
    done = run_copy("predict", "a.mp4", "--model", "models:/x@champion", cwd=tmp_path)
    assert done.returncode == 2
    assert "--mlflow" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["predict.py"]


def test_predict_without_model_or_video(tmp_path):
    done = run_copy("predict", "a.mp4", "--model", tmp_path / "none", cwd=tmp_path)
    assert (done.returncode, done.stderr[:7]) == (2, "error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("labels", "message"),
    [('"a,b', "between double quotes"), ("nowhere.csv", "nowhere.csv: no such file"), (" , ", "no class names in it")],
)
def test_mistakes_in_class_names_are_one_line(tmp_path, labels, message):
    done = run_copy("predict", "a.mp4", "--model", "models:/x@champion", "--labels", labels, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_seconds_of_a_video_are_named_in_the_answer(tmp_path, capsys):
    from pipelines import predict

    save_adapter(tmp_path, ZeroShot(create("toy", weights="toy", num_frames=4), ZeroShot.Config()))
    video = str(write_video(tmp_path / "a.mp4", frames=100))
    arguments = ["--model", str(tmp_path), "--labels", "red car, sailing boat"]
    assert predict.main([video, *arguments, "--start", "1", "--end", "00:00:02.5"]) == 0
    assert capsys.readouterr().out.startswith(f"{video} [1.0-2.5 s]\n")
    assert predict.main([video, *arguments, "--start", "1", "--end", "2.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["start"], found["end"]) == (1, 2.5)
    assert predict.main([video, *arguments, "--end", "9"]) == 1
    assert "times after the video's end: they are 0.0-9.0 s, the video ends at 4.0 s" in capsys.readouterr().err
    with pytest.raises(UserError, match="'x' is no time"):
        predict.main([video, *arguments, "--start", "x"])


def test_a_video_below_the_models_threshold_is_none_of_these(tmp_path, capsys):
    from pipelines import predict

    method = ZeroShot(create("toy", weights="toy", num_frames=4), ZeroShot.Config())
    method.set_classes(["red car", "sailing boat"])
    save_adapter(tmp_path, method)
    (tmp_path / "run.json").write_text(json.dumps({"decision": {"threshold": 1.0}}))
    video = str(write_video(tmp_path / "a.mp4", frames=8))
    assert predict.main([video, "--model", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  none of these; the most probable are"
    assert predict.main([video, "--model", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "none"
    assert predict.main([video, "--model", str(tmp_path), "--labels", "a dog,a cat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"


@pytest.mark.ray
def test_b2n_then_predict(small_data, ray_session, tmp_path, capsys, monkeypatch):
    """The user's two commands on own data, by relative paths; a broken video is one line."""
    monkeypatch.chdir(small_data.parent)
    from pipelines import b2n, predict

    settings = (
        "method.layers=3-4",
        "method.alpha=0",
        "optim.epochs=1",
        "optim.warmup_epochs=0",
        "optim.batch_size=4",
        "protocol.shots=4",
    )
    sets = [part for s in settings for part in ("--set", s)]
    assert b2n.main(["--data", small_data.name, "--out", "runs", *sets]) == 0
    run_dir = capsys.readouterr().out.rsplit("run     ", 1)[1].split("\n")[0]
    assert (Path(run_dir) / "report" / "report.html").is_file()
    video = next(small_data.parent.rglob("*.mp4"))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    arguments = [str(video), str(broken), "--model", run_dir, "--labels", "sailing boat, red car", "--json"]
    assert predict.main(arguments) == 1
    out = capsys.readouterr()
    good, bad = map(json.loads, out.out.splitlines())
    assert set(good["predictions"]) == {"sailing boat", "red car"}
    assert (good["status"], bad["status"]) == ("ok", "failed")
    assert "broken.mp4" in out.err
