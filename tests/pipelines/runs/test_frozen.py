"""A run and a registered model that were made before ``pipelines/`` had its storeys: they read, load and answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import pytest

import vlmodels
from pipelines import report
from pipelines.records import run_file
from tests.helpers.videofiles import write_video

FROZEN = Path(__file__).parents[2] / "data" / "before_the_move"
RUN = FROZEN / "b2n-msta-ed7efa21b1"


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames=20)


def test_its_record_is_read_and_written_again_as_it_was(tmp_path):
    record = run_file.read(RUN / "run.json")
    assert (record.name, record.method, record.epoch_kept) == (RUN.name, "msta", 2)
    assert (record.metrics.tests["base"].top1, record.metrics.select.top1) == (58.75, 60.0)
    run_file.write(tmp_path, record)
    assert (tmp_path / "run.json").read_bytes() == (RUN / "run.json").read_bytes()


def test_the_registered_model_and_the_run_give_the_same_answer(tmp_path, video):
    shutil.copytree(FROZEN / "model", tmp_path / "model")
    shutil.copytree(RUN, tmp_path / "model" / "artifacts" / RUN.name)
    registered = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    loaded = vlmodels.load(str(RUN))
    classes = json.loads((RUN / "classes.json").read_text())["base"]

    (best,) = registered.predict([str(video)])
    every = registered.unwrap_python_model().predictor(video, topk=len(classes))
    assert {found.label for found in every} == set(classes)
    assert sum(found.probability for found in every) == pytest.approx(1.0, abs=1e-5)
    assert list(best.items()) == [(found.label, found.probability) for found in every[:5]]
    assert {found.label: found.probability for found in loaded(video)} == pytest.approx(best)


def test_the_ledger_takes_it(tmp_path):
    assert report.main(["--runs", str(FROZEN), "--out", str(tmp_path), "--brief"]) == 0
    scores = json.loads((tmp_path / "ledger.json").read_text())["scores"]
    assert {score["metric"]: score["mean"] for score in scores} == pytest.approx(
        {"base": 58.75, "novel": 58.25, "HM": 58.498931623931625}
    )
    assert "58.5" in (tmp_path / "report.html").read_text()
