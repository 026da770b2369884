"""What is run of a sweep, and how much at a time."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipelines.config.schema import ScaleConfig, TrainConfig
from pipelines.sweeps.candidates import Candidate
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import TrialRecord
from pipelines.sweeps.runner import at_a_time, cluster_room, run_trials, trials_to_run
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


@pytest.fixture
def growing_cluster(tmp_path, monkeypatch):
    """Run the trials of a sweep of 20 on a head without CPUs; returns how many at a time, and the lines printed."""

    class Started(Exception):  # noqa: N818
        """Ray Tune would start."""

    def build_tuner(*_, concurrent, **__):
        raise Started(concurrent)

    def run(*, grows, most_workers, concurrent):
        plan = SimpleNamespace(
            base=TrainConfig(out=str(tmp_path)),
            name="s",
            count=20,
            candidates=None,
            space=None,
            first=SimpleNamespace(config=TrainConfig(), data=None),
            search=SimpleNamespace(objectives=[SimpleNamespace(metric="select.top1")]),
        )
        room = functools.partial(
            cluster_room, can_grow=lambda nodes: grows and nodes == 1, most_places=lambda *_: most_workers
        )
        lines = []
        with pytest.raises(Started) as started:
            run_trials(
                plan,
                SweepFolder(tmp_path),
                sweep_run_id=None,
                concurrent=concurrent,
                say=lines.append,
                check=lambda *_, **__: [],
                room=room,
                build_tuner=build_tuner,
            )
        return started.value.args[0], lines

    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True}, {"Alive": False}])
    monkeypatch.setattr("ray.cluster_resources", dict)
    return run


@pytest.mark.parametrize(
    ("most_workers", "wanted", "count"),
    [(None, 0, 8), (None, 3, 3), (2, 0, 2), (2, 3, 2)],
)
def test_a_cluster_without_machines_yet_is_asked_for_them(growing_cluster, most_workers, wanted, count):
    started, lines = growing_cluster(grows=True, most_workers=most_workers, concurrent=wanted)
    assert started == count
    assert lines == [f"up to {count} trials at a time (--concurrent): the autoscaler may start machines for them"]


def test_a_cluster_without_machines_that_cannot_grow_is_refused(growing_cluster):
    with pytest.raises(UserError, match="1 CPUs of 0"):
        growing_cluster(grows=False, most_workers=None, concurrent=0)


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
