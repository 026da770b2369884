"""What is run of a sweep, and how much at a time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.cluster.view import LauncherConfig, MachineType
from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.sweeps.candidates import Candidate
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import TrialRecord
from pipelines.sweeps.runner import at_a_time, run_trials, trials_to_run
from tests.helpers.fake_cluster import FakeCluster, machine
from vlmodels.errors import UserError


@pytest.mark.parametrize(
    ("scale", "cluster", "wanted", "count"),
    [
        ({}, {"CPU": 2}, 0, 2),
        ({}, {"CPU": 8}, 3, 3),
        ({}, {"CPU": 2}, 5, 2),
        ({"cpus_per_worker": 0.5}, {"CPU": 2}, 0, 4),
        ({"workers": 2}, {"CPU": 5}, 0, 2),
        ({"gpu": True}, {"CPU": 16, "GPU": 4}, 0, 4),
        ({"gpu": True, "gpus_per_worker": 1 / 3}, {"CPU": 16, "GPU": 1}, 0, 3),
        ({"gpu": True, "gpus_per_worker": 0.1, "cpus_per_worker": 2}, {"CPU": 8, "GPU": 1}, 0, 4),
        ({"gpu": True, "workers": 2}, {"CPU": 16, "GPU": 4}, 0, 2),
    ],
)
def test_as_many_trials_as_fit(scale, cluster, wanted, count):
    assert at_a_time(TrainConfig(scale=ScaleConfig(**scale)), cluster, wanted) == count


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"workers": 3}, "a trial of 3 workers needs 3 CPUs of 2"),
        ({"gpu": True}, "1 GPUs of 0"),
        ({"cpus_per_worker": 4}, "4 CPUs of 2.*scale.cpus_per_worker lower"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(scale, words):
    with pytest.raises(UserError, match=words):
        at_a_time(TrainConfig(scale=ScaleConfig(**scale)), {"CPU": 2}, 0)


@pytest.mark.parametrize(
    ("cluster", "wanted", "trials", "count"),
    [({}, 0, 20, 8), ({}, 0, 3, 3), ({}, 12, 20, 12), ({}, 12, 3, 3), ({"CPU": 2}, 5, 20, 5), ({"CPU": 16}, 0, 20, 16)],
)
def test_machines_that_may_come_are_no_limit(cluster, wanted, trials, count):
    assert at_a_time(TrainConfig(), cluster, wanted, coming=trials) == count


class Started(Exception):  # noqa: N818
    """Ray Tune would start."""


@pytest.fixture
def start(tmp_path):
    """Start a sweep of 20 trials on a cluster; returns how many at a time, and the lines printed."""

    def build_tuner(*_, concurrent, **__):
        raise Started(concurrent)

    plan = SimpleNamespace(
        base=TrainConfig(out=str(tmp_path)),
        name="s",
        count=20,
        candidates=None,
        space=None,
        first=SimpleNamespace(config=TrainConfig(), data=None),
        search=SimpleNamespace(objectives=[SimpleNamespace(metric="select.top1")]),
    )

    def run(cluster, *, concurrent=0):
        lines = []
        with pytest.raises(Started) as started:
            run_trials(
                plan,
                SweepFolder(tmp_path),
                sweep_run_id=None,
                concurrent=concurrent,
                say=lines.append,
                cluster=cluster,
                check=lambda *_, **__: [],
                build_tuner=build_tuner,
            )
        return started.value.args[0], lines

    return run


def head_alone(**autoscaler):
    """A cluster of a head without CPUs; a machine that was lost is no machine of it."""
    return FakeCluster([machine("head"), {**machine("lost", CPU=8), "Alive": False}], **autoscaler)


@pytest.mark.parametrize(
    ("most_workers", "wanted", "count"),
    [(None, 0, 8), (None, 3, 3), (2, 0, 2), (2, 3, 2)],
)
def test_a_cluster_without_machines_yet_is_asked_for_them(start, most_workers, wanted, count):
    types = (MachineType({"CPU": 1}, most_workers),)
    launcher = None if most_workers is None else LauncherConfig(most_workers, types)
    started, lines = start(head_alone(types={"head"}, launched_by=launcher), concurrent=wanted)
    assert started == count
    assert lines == [f"up to {count} trials at a time (--concurrent): the autoscaler may start machines for them"]


def test_a_cluster_without_machines_that_cannot_grow_is_refused(start):
    with pytest.raises(UserError, match="1 CPUs of 0"):
        start(head_alone(types={"node_1"}))


def test_a_cluster_that_has_all_its_machines_is_no_reason_to_wait(start):
    """A second machine is up, the one that was allowed: what is there now is the limit."""
    types = (MachineType({"CPU": 2}, 1),)
    full = FakeCluster([machine("head"), machine("a", CPU=2)], types={"head"}, launched_by=LauncherConfig(1, types))
    assert start(full) == (2, [])


def test_a_searcher_begins_with_what_it_had_suggested_and_a_list_with_what_has_not_ended(tmp_path):
    candidates = [Candidate({"method.dims": dims}, seed) for dims in ("8", "16") for seed in (1, 2)]
    folder = SweepFolder(tmp_path)
    for candidate, status in zip(candidates, ("finished", "failed", "started"), strict=False):
        folder.write_trial(replace(TrialRecord.of(candidate), status=status))
    listed = trials_to_run(SimpleNamespace(candidates=candidates), folder)
    assert [(config["setting"]["method.dims"], config["seed"]) for config in listed] == [("8", 2), ("16", 1), ("16", 2)]
    suggested = trials_to_run(SimpleNamespace(candidates=None), folder)
    assert suggested == [{"setting": {"method.dims": "8"}}, {"setting": {"method.dims": "16"}}]
    assert [trial.status for trial in folder.trials()] == ["finished", "failed"]
