"""The scripts as users start them: alone, with wrong arguments, with nothing but their own file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlmodels.errors import UserError

PIPELINES = Path(__file__).parents[3] / "pipelines"
PROTOCOLS = ("zero_shot", "few_shot", "b2n", "supervised", "retrieval")
SCRIPTS = (
    "ingest",
    "check_data",
    "make_splits",
    "describe",
    *PROTOCOLS,
    "report",
    "attention",
    "predict",
    "demo",
    "sweep",
)


def run(script, *arguments, cwd):
    """Run a lone copy of the script, as ``ray submit`` leaves it on a cluster's head."""
    copy = shutil.copy(PIPELINES / f"{script}.py", cwd)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    command = [sys.executable, copy, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, env=clean)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_of_a_lone_copy_imports_nothing_heavy(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    probe = f"import sys, runpy; sys.argv=['x', '--help']\ntry: runpy.run_path('{script}.py', run_name='__main__')\n"
    probe += "except SystemExit: pass\n"
    probe += "heavy = {'torch', 'ray', 'mlflow', 'openai', 'open_clip', 'pandas'} & set(sys.modules)\n"
    probe += "assert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_dry_run_prints_the_plan_and_makes_nothing(small_data, tmp_path):
    done = run("b2n", "--data", small_data, "--set", "method.layers=2-3", "--set", "method.alpha=0", "--dry-run",
               "--set", "optim.batch_size=4", "--set", "protocol.shots=4", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("toy", "msta", "layers=2-3", "trains", "test 'novel'", "lr 0.001"):
        assert words in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["b2n.py"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "mstaa"], "did you mean 'msta'"),
        (["--set", "optim.lrr=1"], "did you mean 'lr'"),
        (["--data", "nowhere"], "nowhere"),
        (["--backbone", "ViT-B-61", "--pretrained", "none"], "did you mean"),
        (["--backbone", "ViT-B-16"], "needs --pretrained"),
        (["--backbone", "ViT-B-16", "--pretrained", "none", "--register", "x"], "cannot be registered"),
        (["--lists", "nolists"], "nolists"),
    ],
)
def test_a_mistake_is_one_line_without_traceback(small_data, tmp_path, arguments, words):
    done = run("b2n", "--data", small_data, "--set", "method.alpha=0", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_from_a_registry_that_is_not_there_makes_none(tmp_path):
    done = run("predict", "a.mp4", "--model", "models:/x@champion", cwd=tmp_path)
    assert done.returncode == 2
    assert "--mlflow" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["predict.py"]


def test_predict_without_model_or_video(tmp_path):
    done = run("predict", "a.mp4", "--model", tmp_path / "none", cwd=tmp_path)
    assert (done.returncode, done.stderr[:7]) == (2, "error: ")
    assert "Traceback" not in done.stderr


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
    assert set(json.loads(out.out)["predictions"]) == {"sailing boat", "red car"}
    assert "broken.mp4" in out.err
    with pytest.raises(UserError, match=r"s3://b/v\.mp4: videos to predict have to be local; copy it"):
        predict.main(["s3://b/v.mp4", *arguments])
