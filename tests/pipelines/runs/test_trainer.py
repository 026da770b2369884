"""Ray Train with fewer processes on one machine, and all of them on a cluster."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from pipelines.runs.trainer import Trainer


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
