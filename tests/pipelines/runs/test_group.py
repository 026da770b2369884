"""One group of workers for many runs: killed between two, in one of them, with runs that fail, stopped by the user."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from pipelines.planning.plan import plan_run
from pipelines.runs.progress import EpochDone, Resumed, ScoringStarted, WorkerUp
from pipelines.runs.run import Watch, run_plans, run_training
from pipelines.runs.tracking import connect
from pipelines.training.errors import DivergedError
from tests.helpers.small_runs import config_of, losses
from vlmodels.errors import UserError
from vlmodels.toy import TOY_WEIGHTS

pytestmark = pytest.mark.ray


def seed(number, data, out, *overrides, **settings):
    config = config_of(data, out, "optim.epochs=6", *overrides, **settings)
    return plan_run(dataclasses.replace(config, seed=number))


class Pids:
    """The workers' processes, and what was heard; kills rank 1 at each message for which one of ``at`` holds, once."""

    def __init__(self, *at):
        self.pids = []
        self.epochs = []
        self.resumed = []
        self.at = list(at)
        self.runs = self.runs_at_hit = 0  # that have begun, starts after a loss included
        self._rank1 = 0

    def __call__(self, message):
        match message:
            case WorkerUp(rank=rank, pid=pid):
                self.pids.append(pid)
                if rank == 1:
                    self._rank1 = pid
                self.runs += rank == 1
            case EpochDone(metrics):
                self.epochs.append(int(metrics["epoch"]))
            case Resumed(epoch):
                self.resumed.append(epoch)
        if self.at and self.at[0](message, self.runs):
            self.at.pop(0)
            self.runs_at_hit = self.runs
            self.hit()

    def hit(self):
        os.kill(self._rank1, signal.SIGKILL)


@pytest.fixture(scope="module")
def together(small_data, ray_session, tmp_path_factory):
    """Three seeds by one group, where nothing goes wrong."""
    out, pids = tmp_path_factory.mktemp("together"), Pids()
    results = run_plans([seed(number, small_data, out) for number in (1, 2, 3)], on_message=pids)
    assert len(set(pids.pids)) == 2, "the same two processes do all"
    assert not [*(out / ".ray").iterdir()], "nothing is left"
    return results


def same(results, others):
    for one, other in zip(results, others, strict=True):
        assert losses(one) == losses(other)
        assert one.metrics == other.metrics
        assert one.record.name == other.record.name
        assert {path.name for path in Path(one.run_dir).rglob("*")} == {p.name for p in Path(other.run_dir).rglob("*")}


def epoch(number):
    return lambda message, runs: isinstance(message, EpochDone) and message.metrics["epoch"] == number and runs > 1


def test_each_run_is_as_alone(together, small_data, tmp_path):
    same([run_training(seed(2, small_data, tmp_path))], together[1:2])


def test_killed_workers_cost_no_finished_run_and_no_epoch(together, small_data, tmp_path):
    """One as the first run is scored, one as the second begins, one in the middle of it."""

    def scored(message, runs):
        return isinstance(message, ScoringStarted) and message.name == "novel"

    def begins(message, runs):
        return isinstance(message, WorkerUp) and message.rank == 1 and runs == pids.runs_at_hit + 2

    def third_epoch(message, runs):
        return isinstance(message, EpochDone) and message.metrics["epoch"] == 3

    pids, lines = Pids(scored, begins, third_epoch), []
    plans = [seed(number, small_data, tmp_path, "scale.max_failures=2") for number in (1, 2, 3)]
    same(run_plans(plans, on_message=pids, say=lines.append), together)
    assert not pids.at
    assert len(pids.epochs) <= 18, "no epoch is trained twice"
    assert sum("lost rank 1" in line for line in lines) == 3


def test_a_run_that_fails_leaves_the_others_as_they_are(together, small_data, tmp_path):
    """One diverges, one's weight file is damaged after its plan: two errors, two results, MLflow knows each."""
    uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    wrong = tmp_path / "weights.safetensors"
    wrong.write_bytes(TOY_WEIGHTS.read_bytes())
    plans = [
        seed(1, small_data, tmp_path, uri),
        seed(2, small_data, tmp_path, uri, "optim.lr=1e30", "method.scale=100"),
        seed(3, small_data, tmp_path, uri, f"backbone.pretrained={wrong}"),
        seed(2, small_data, tmp_path, uri),
    ]
    wrong.write_bytes(b"<html>not found</html>")
    first, diverged, mistake, last = run_plans(plans)
    assert isinstance(diverged, DivergedError)
    assert isinstance(mistake, UserError)
    assert "weights.safetensors" in str(mistake)
    assert [losses(first), losses(last)] == [losses(together[0]), losses(together[1])]
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    status = {run.info.run_name: run.info.status for run in tracked}
    assert [status[plan.name] for plan in plans] == ["FINISHED", "FAILED", "FAILED", "FINISHED"]


def test_runs_of_other_numbers_of_workers_go_along(together, small_data, tmp_path):
    """Two, one and three workers in one command: a group for each number, the single one in this process."""
    pids = Pids()
    plans = [
        seed(1, small_data, tmp_path),
        seed(2, small_data, tmp_path, workers=1),
        seed(3, small_data, tmp_path, "scale.cpus_per_worker=0.5", workers=3),
    ]
    results = run_plans(plans, on_message=pids)
    same(results[:1], together[:1])
    assert [len(result.record.workers) for result in results] == [2, 1, 3]
    assert os.getpid() in pids.pids
    assert len(set(pids.pids)) == 2 + 1 + 3


def test_workers_that_fail_in_one_run_again_and_again_do_the_others(together, small_data, tmp_path):
    limit = "scale.max_failures=0"
    plans = [seed(number, small_data, tmp_path, limit) for number in (1, 3)]
    plans.insert(1, seed(2, small_data, tmp_path, limit, "optim.epochs=100"))  # long enough to be hit
    first, given_up, last = run_plans(plans, on_message=Pids(epoch(1)))
    assert isinstance(given_up, RuntimeError)
    assert "given up (scale.max_failures=0)" in str(given_up)
    same([first, last], [together[0], together[2]])
    pids = Pids()
    results = run_plans(plans, on_message=pids)
    assert [result.reused for result in results] == [True, False, True]
    assert pids.resumed
    assert len(losses(results[1])) == 100


def test_ctrl_c_while_workers_start_leaves_no_run_open(small_data, ray_session, tmp_path):
    """Opening the tracked run takes longer than the user's patience."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    plan = seed(1, small_data, tmp_path, f"tracking.uri={uri}")
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_training(plan)
    client = connect(uri)
    found = client.get_experiment_by_name("vidadapt")
    tracked = client.search_runs([found.experiment_id]) if found else []
    assert {run.info.status for run in tracked} <= {"KILLED"}


def test_ctrl_c_in_the_second_run_leaves_nothing_running(small_data, ray_session, tmp_path):
    from ray.util import placement_group_table

    class Stop(Pids):
        def hit(self):
            os.kill(os.getpid(), signal.SIGINT)

    uri = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    plans = [seed(number, small_data, tmp_path, uri) for number in (1, 3)]
    plans.insert(1, seed(2, small_data, tmp_path, uri, "optim.epochs=2000"))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_plans(plans, on_message=Stop(epoch(1)))
    assert signal.getsignal(signal.SIGINT) is handler  # Ray Train puts one of its own
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    tracked = client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])
    status = {run.info.run_name: run.info.status for run in tracked}
    assert status == {plans[0].name: "FINISHED", plans[1].name: "KILLED"}
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert [path.name for path in (tmp_path / ".ray").iterdir()] == [plans[1].name], "what it goes on from"


def trials(plans, *at):
    """Run plans as a sweep's trials are: each by itself, watched, one after the other in one process."""
    pids, ended = Pids(*at), []
    for plan in plans:
        try:
            watch = Watch("a trial", lambda _: None)
            ended.append(run_training(plan, watch=watch, say=lambda _: None, on_message=pids))
        except DivergedError as error:
            ended.append(error)
    return ended, pids.pids


@pytest.fixture
def trial_process(ray_session):
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its process does not find this file
    actor = ray.remote(num_cpus=0)(Trials).remote()
    yield actor
    ray.kill(actor)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Trials:
    def run(self, plans, at=()):
        return trials(plans, *at)


def test_trials_of_several_workers_share_one_group(together, small_data, tmp_path, trial_process):
    """One diverges, one has a killed worker; then the process of the trials is killed, and its CPUs are free again."""
    import ray

    plans = [seed(number, small_data, tmp_path) for number in (1, 2, 3)]
    bad = seed(1, small_data, tmp_path, "optim.lr=1e30", "method.scale=100")
    ended, pids = ray.get(trial_process.run.remote([plans[0], bad, plans[1]]))
    assert len(set(pids)) == 2, "the same two processes do all"
    assert isinstance(ended[1], DivergedError)
    assert [losses(ended[0]), losses(ended[2])] == [losses(together[0]), losses(together[1])]
    ended, pids = ray.get(trial_process.run.remote([plans[2]], [epoch_of_any(3)]))
    assert len(set(pids)) == 4
    assert losses(ended[0]) == losses(together[2])
    ray.kill(trial_process)
    same(run_plans([seed(2, small_data, tmp_path / "after")]), together[1:2])


def epoch_of_any(number):
    return lambda message, _: isinstance(message, EpochDone) and message.metrics["epoch"] == number
