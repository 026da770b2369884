"""Ray Train with fewer processes on one machine, and all of them on a cluster."""

from __future__ import annotations

import time
from importlib.metadata import version

import pytest
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.util import placement_group, placement_group_table, remove_placement_group

from pipelines.runs.trainer import Trainer, free_places_of_the_dead


def test_the_version_of_ray_is_the_one_that_was_read():
    assert version("ray") == "2.60.0", "read pipelines/runs/trainer.py and docs/RAY.md again, then change this line"


def trainer(train, path, *, alone):
    return Trainer(
        train,
        alone=alone,
        train_loop_config={},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="it", storage_path=str(path)),
    )


@pytest.mark.parametrize("alone", [True, False])
def test_what_guards_and_serves_a_cluster_is_left_out_on_one_machine(ray_session, tmp_path, monkeypatch, alone):
    made = trainer(lambda _: None, tmp_path, alone=alone)._create_default_callbacks()
    names = {type(callback).__name__ for callback in made}
    assert {"AcceleratorSetupCallback", "BackendSetupCallback", "UserCallbackHandler"} <= names
    for_clusters = {"DatasetsCallback", "PlacementGroupCleanerCallback", "ControllerMetricsCallback"}
    assert names & for_clusters == (set() if alone else for_clusters)


def test_a_controller_workers_and_one_small_actor_are_all_that_runs(ray_session, tmp_path, monkeypatch):
    def neighbours(_):  # in here, so that workers need not import this module
        import os
        import time
        from pathlib import Path

        time.sleep(2)  # those that start late are to be seen too
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                title = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            except OSError:
                continue
            if parent == str(os.getppid()) and title.startswith("ray::"):
                found.append(title.removeprefix("ray::").partition(".")[0])
        return found

    monkeypatch.delenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", raising=False)
    found = trainer(neighbours, tmp_path, alone=True).fit().return_value
    assert {"TrainController", "RayTrainWorker", "NoBarrier"} <= set(found)
    helpers = ("PreemptionWatcher", "PlacementGroupCleaner", "DatasetManager", "SynchronizationActor")
    assert not set(helpers) & set(found)


def test_places_of_a_killed_controller_are_freed_and_no_others(ray_session):
    class Holder:
        def hold(self):
            from ray.util import placement_group

            self.group = placement_group([{"CPU": 0.1}])
            assert self.group.wait(60)
            return self.group

    own = placement_group([{"CPU": 0.1}])
    assert own.wait(60)
    living, dead = (ray.remote(num_cpus=0)(Holder).remote() for _ in range(2))
    held, orphan = ray.get([living.hold.remote(), dead.hold.remote()])
    ray.kill(dead)

    def state(group):
        return placement_group_table(group)["state"]

    until = time.monotonic() + 60
    while state(orphan) != "REMOVED" and time.monotonic() < until:
        free_places_of_the_dead()
        time.sleep(0.1)
    assert [state(group) for group in (orphan, held, own)] == ["REMOVED", "CREATED", "CREATED"]
    remove_placement_group(held)
    remove_placement_group(own)
