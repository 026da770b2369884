"""One group of workers for many runs: killed between two, in one of them, with runs that fail, stopped by the user."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from pipelines.planning.plan import plan_run
from pipelines.runs.progress import EpochDone, Resumed, ScoringStarted, WorkerUp
from pipelines.runs.run import run_plans, run_training
from pipelines.runs.tracking import connect
from pipelines.training.errors import DivergedError
from tests.helpers.small_runs import config_of, losses
from vlmodels.errors import UserError

pytestmark = pytest.mark.ray


def seed(number, data, out, *overrides, **settings):
    config = config_of(data, out, "optim.epochs=6", *overrides, **settings)
    return plan_run(dataclasses.replace(config, seed=number))


@pytest.fixture(scope="module")
def alone(small_data, ray_session, tmp_path_factory):
    """Losses and metrics of three seeds, each by workers of its own; and what other tests compare with."""
    out = tmp_path_factory.mktemp("alone")
    return [run_training(seed(number, small_data, out)) for number in (1, 2, 3)]


def same(results, alone):
    for one, other in zip(results, alone, strict=True):
        assert losses(one) == losses(other)
        assert one.metrics == other.metrics
        assert one.record.name == other.record.name
        assert {path.name for path in Path(one.run_dir).rglob("*")} == {p.name for p in Path(other.run_dir).rglob("*")}


class Pids:
    """Processes of the workers, and the epochs and lines that were heard; kills rank 1 at the message ``at``."""

    def __init__(self, at=lambda message, count: False):
        self.pids = []
        self.epochs = []
        self.resumed = []
        self.kills = 0
        self._at = at
        self._rank1 = 0
        self._ups = 0

    def __call__(self, message):
        match message:
            case WorkerUp(rank=rank, pid=pid):
                self.pids.append(pid)
                if rank == 1:
                    self._rank1 = pid
                self._ups += rank == 0
            case EpochDone(metrics):
                self.epochs.append(int(metrics["epoch"]))
            case Resumed(epoch):
                self.resumed.append(epoch)
        if not self.kills and self._at(message, self._ups):
            self.kills += 1
            os.kill(self._rank1, signal.SIGKILL)


def test_three_runs_by_the_same_workers_equal_each_alone(alone, small_data, tmp_path):
    pids = Pids()
    results = run_plans([seed(number, small_data, tmp_path) for number in (1, 2, 3)], on_message=pids)
    same(results, alone)
    assert len(set(pids.pids)) == 2
    assert [path.name for path in (tmp_path / ".ray").iterdir()] == [], "nothing is left"


@pytest.mark.parametrize("when", ["in the second run", "as the first is scored", "as the second begins"])
def test_a_killed_worker_costs_no_finished_run(alone, small_data, tmp_path, when):
    at = {
        "in the second run": lambda message, ups: (
            ups == 2 and isinstance(message, EpochDone) and message.metrics["epoch"] == 3
        ),
        "as the first is scored": lambda message, ups: isinstance(message, ScoringStarted) and message.name == "novel",
        "as the second begins": lambda message, ups: ups == 2 and isinstance(message, WorkerUp) and message.rank == 1,
    }[when]
    pids, lines = Pids(at), []
    plans = [seed(number, small_data, tmp_path) for number in (1, 2, 3)]
    results = run_plans(plans, on_message=pids, say=lines.append)
    assert pids.kills == 1
    same(results, alone)
    assert len(pids.epochs) == 18, "no epoch is trained twice"
    assert sum("lost rank 1" in line for line in lines) == 1


def test_a_run_that_fails_leaves_the_others_as_they_are(alone, small_data, tmp_path):
    """One diverges, one has a weight file that is none: two errors, two results, MLflow knows each."""
    uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    wrong = tmp_path / "weights.safetensors"
    wrong.write_bytes(b"<html>not found</html>")
    plans = [
        seed(1, small_data, tmp_path, uri),
        seed(2, small_data, tmp_path, uri, "optim.lr=1e30", "method.scale=100"),
        seed(2, small_data, tmp_path, uri, f"backbone.pretrained={wrong}"),
        seed(2, small_data, tmp_path, uri),
    ]
    first, diverged, mistake, last = run_plans(plans)
    assert isinstance(diverged, DivergedError)
    assert isinstance(mistake, UserError)
    assert "weights.safetensors" in str(mistake)
    assert [losses(first), losses(last)] == [losses(alone[0]), losses(alone[1])]
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    status = {run.info.run_name: run.info.status for run in tracked}
    assert [status[plan.name] for plan in plans] == ["FINISHED", "FAILED", "FAILED", "FINISHED"]


def test_workers_that_fail_in_one_run_again_and_again_do_the_others(alone, small_data, tmp_path):
    def at(message, ups):
        return isinstance(message, EpochDone) and ups == 2

    plans = [seed(number, small_data, tmp_path, "scale.max_failures=0") for number in (1, 2, 3)]
    first, given_up, last = run_plans(plans, on_message=Pids(at))
    assert isinstance(given_up, RuntimeError)
    assert "given up (scale.max_failures=0)" in str(given_up)
    same([first, last], [alone[0], alone[2]])
    pids = Pids()
    results = run_plans(plans, on_message=pids)
    same(results, alone)
    assert [result.reused for result in results] == [True, False, True]
    assert pids.resumed


def test_ctrl_c_in_the_second_run_leaves_nothing_running(alone, small_data, ray_session, tmp_path):
    import ray
    from ray.util import placement_group_table

    class Stop(Pids):
        def __call__(self, message):
            super().__call__(message)
            if isinstance(message, EpochDone) and self._ups == 2 and not self.kills:
                self.kills = 1
                os.kill(os.getpid(), signal.SIGINT)

    uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    plans = [seed(number, small_data, tmp_path, uri) for number in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt):
        run_plans(plans, on_message=Stop())
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    status = {run.info.run_name: run.info.status for run in tracked}
    assert status == {plans[0].name: "FINISHED", plans[1].name: "KILLED"}
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert ray.is_initialized()
    results = run_plans(plans)
    same(results, alone)
    assert [result.reused for result in results] == [True, False, False]
