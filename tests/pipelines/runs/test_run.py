"""Runs as users start them: two DDP workers, killed and resumed, reused, tracked, registered, refused."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from pipelines.planning.plan import plan_run
from pipelines.runs.progress import EpochDone, WorkerUp
from pipelines.runs.run import Watch, run_training
from tests.helpers.small_runs import config_of, losses
from vlmodels.errors import UserError
from vlmodels.toy import TOY_WEIGHTS

pytestmark = pytest.mark.ray


def run(config, **settings):
    return run_training(plan_run(config), **settings)


class Killer:
    """Kills the worker of rank 1, once, after the third epoch."""

    def __init__(self):
        self.killed = False
        self._pid = 0

    def __call__(self, message):
        match message:
            case WorkerUp(rank=1, pid=pid):
                self._pid = pid
            case EpochDone(metrics) if metrics["epoch"] == 3 and not self.killed:
                self.killed = True
                os.kill(self._pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(small_data, ray_session, tmp_path_factory):
    """Two workers, nothing goes wrong."""
    handler = signal.getsignal(signal.SIGINT)
    result = run(config_of(small_data, tmp_path_factory.mktemp("undisturbed")))
    assert signal.getsignal(signal.SIGINT) is handler  # Ray Train puts one of its own
    return result


def test_a_run_leaves_its_folder(undisturbed):
    from pathlib import Path

    folder = Path(undisturbed.run_dir)
    names = {p.name for p in folder.iterdir()}
    written = {"adapter.safetensors", "config.json", "classes.json", "run.json", "predictions.npz", "report"}
    assert names == written | {"model_card.md"}
    record = json.loads((folder / "run.json").read_text())
    assert record["metrics"]["base"]["n_scored"] == record["metrics"]["base"]["n_listed"] > 0
    assert record["config"]["optim"]["epochs"] == 20
    assert len(record["history"]) == 20
    assert not (folder.parent / ".ray" / folder.name).exists()
    for picture in ("accuracy", "curves", "confusion_base_0", "confusion_novel_1"):
        assert (folder / "report" / f"{picture}.png").stat().st_size > 5000
    with np.load(folder / "predictions.npz") as predictions:
        assert predictions["base/score"].shape == (record["metrics"]["base"]["n_scored"], 2)


def test_one_worker_equals_two(undisturbed, small_data, tmp_path):
    alone = run(config_of(small_data, tmp_path, workers=1))
    assert losses(alone) == pytest.approx(losses(undisturbed), rel=1e-4)
    assert alone.record.name == undisturbed.record.name


def test_the_same_run_is_reused(undisturbed, small_data):
    from pathlib import Path

    lines = []
    again = run(config_of(small_data, Path(undisturbed.run_dir).parent), say=lines.append)
    assert again.reused
    assert again.record == undisturbed.record
    assert "reusing" in lines[0]


def test_a_killed_worker_changes_nothing(undisturbed, small_data, tmp_path):
    """A worker is killed in the middle; the run ends with the same losses to the last bit."""
    killer, lines = Killer(), []
    result = run(config_of(small_data, tmp_path), say=lines.append, on_message=killer)
    assert killer.killed
    assert any("continuing after epoch" in line for line in lines)
    assert result.record.restarts == 1
    assert losses(result) == losses(undisturbed)
    assert result.record.metrics == undisturbed.record.metrics


def test_fewer_workers_continue_with_the_same_parts(small_data, ray_session, tmp_path):
    """Two workers, one is killed for good; the same command with one worker ends as if there had been one only."""
    parts, lines = ("data.parts=4", "scale.max_failures=0", "optim.epochs=60"), []
    alone = run(config_of(small_data, tmp_path / "alone", *parts, workers=1), watch=Watch("", lambda _: None))
    with pytest.raises(RuntimeError, match=r"given up \(scale\.max_failures=0\)"):
        run(config_of(small_data, tmp_path, *parts), say=lines.append, on_message=Killer())
    assert any("lost rank" in line and "giving up; the same command continues" in line for line in lines)
    result = run(config_of(small_data, tmp_path, *parts, workers=1), say=lines.append)
    assert any("continuing after epoch" in line for line in lines)
    assert losses(result) == pytest.approx(losses(alone), rel=1e-4)
    assert list(result.record.workers) == ["0"]


def test_a_mistake_in_the_worker_is_reported_once(small_data, ray_session, tmp_path):
    """A weight file that is damaged after the plan has read it: one message, no retries, the run ends as failed."""
    wrong = tmp_path / "weights.safetensors"
    wrong.write_bytes(TOY_WEIGHTS.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = config_of(small_data, tmp_path, f"backbone.pretrained={wrong}", f"tracking.uri={uri}")
    plan = plan_run(config)
    wrong.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        run_training(plan)
    from pipelines.runs.tracking import connect

    client = connect(uri)
    (tracked,) = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    assert tracked.info.status == "FAILED"
    assert "weights.safetensors" in tracked.data.tags["error"]


def test_tracked_registered_and_pulled_from_the_registry(small_data, ray_session, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = (f"tracking.uri={uri}", "tracking.register=small", "protocol.holdout=0.3", "selection=select")
    result = run(config_of(small_data, tmp_path / "runs", *settings, workers=1))
    from pipelines.runs.tracking import connect

    client = connect(uri)
    (tracked,) = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["optim.epochs"] == "20"
    assert tracked.data.params["facts.split_digest"] == result.record.facts.split_digest
    assert tracked.data.metrics["base/top1"] == result.metrics.tests["base"].top1
    assert tracked.data.metrics["decision/temperature"] == result.record.decision.temperature
    assert [m.value for m in client.get_metric_history(tracked.info.run_id, "loss")] == pytest.approx(losses(result))
    assert 1 <= result.record.epoch_kept <= 20
    version = client.get_model_version_by_alias("small", "champion")
    assert version.run_id == tracked.info.run_id

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    import vlmodels

    predictor = vlmodels.load("models:/small@champion")
    video = next(small_data.parent.rglob("*.mp4"))
    found = predictor(video, topk=2)
    assert sum(p.probability for p in found) == pytest.approx(1, abs=1e-5)
    assert {p.label for p in found} == set(result.record.classes["base"])
    again = run(config_of(small_data, tmp_path / "runs", *settings, workers=1))
    assert again.reused
    assert len(client.search_model_versions("name = 'small'")) == 1
    other = f"tracking.uri=sqlite:///{tmp_path}/other.db"
    with pytest.raises(UserError, match="tracked elsewhere"):
        run(config_of(small_data, tmp_path / "runs", *settings[1:], other, workers=1))


def test_zero_shot_needs_no_training(small_data, ray_session, tmp_path):
    result = run(config_of(small_data, tmp_path, method="zeroshot", workers=1))
    assert result.record.history == ()
    assert result.record.facts.trainable == 0
    assert result.metrics.tests["novel"].n_scored > 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.batch_size=64"], "larger than the 8 training clips"),
        (["method.layers=3-9"], "4 layers"),
        (["data.clips=3"], "--pool 3"),
        (["backbone.name=ViT-B-16", "backbone.pretrained=openai"], "--size 224"),
        (["backbone.name=ViT-B-17"], "did you mean"),
        (["backbone.pretrained=toyy"], "did you mean 'toy'"),
        (["backbone.name=ViT-B-16", "backbone.pretrained=opneai"], "did you mean 'openai'"),
        (["method.alpha=1"], "pipelines/describe.py"),
        (["scale.workers=9", "optim.batch_size=9"], "larger than the 8"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(small_data, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        plan_run(config_of(small_data, tmp_path, *overrides))


def test_mistakes_of_every_kind_are_reported_together(small_data, tmp_path):
    with pytest.raises(UserError) as caught:
        plan_run(config_of(small_data, tmp_path, "optim.lr=-1", "optim.batch_size=64", "method.alpha=1", "data.clips=3",
                           "backbone.pretrained=toyy"))  # fmt: skip
    for words in ("optim.lr=-1", "larger than the 8", "pipelines/describe.py", "--pool 3", "did you mean 'toy'"):
        assert str(caught.value).count(words) == 1


def test_more_workers_than_cpus_are_refused(small_data, ray_session, tmp_path):
    with pytest.raises(UserError, match="4 workers need 4 CPUs but Ray has 2"):
        run(config_of(small_data, tmp_path, workers=4))


def test_an_unwritable_place_is_named(small_data, ray_session, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(config_of(small_data, tmp_path / "file" / "runs"))
