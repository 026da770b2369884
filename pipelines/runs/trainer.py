"""Ray Train's ``TorchTrainer``, with fewer processes where they serve nothing: docs/RAY.md#processes-of-ray-train.

All that is private to Ray Train in how runs are started is here. ``tests/pipelines/runs/test_trainer.py`` fails when
another version of Ray is pinned, so that someone reads this again.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.metrics import ControllerMetricsCallback, WorkerMetricsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.util.placement_group import PlacementGroup, remove_placement_group

_ABORT_S = 10.0


class Trainer(TorchTrainer):  # type: ignore[misc]  # Ray is untyped here
    """``TorchTrainer`` that ends with Ctrl-C as any other call does.

    Args:
        alone: whether Ray runs on this machine alone and ends with this process: then nothing is started that guards
            against the loss of the controller, serves data or metrics, or asks for machines.
        settings: of ``TorchTrainer``.
    """

    def __init__(self, *args: Any, alone: bool, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._alone = alone
        self._controller: Any = None

    def fit(self) -> Any:
        """Run the workers; whatever else ends the call ends them too."""
        try:
            return super().fit()
        except (KeyboardInterrupt, SystemExit):
            self.abort()
            raise

    def abort(self) -> None:
        """End the workers."""
        if self._controller is not None:
            with contextlib.suppress(Exception):  # the controller exits, so there is no answer
                ray.get(self._controller.abort.remote(), timeout=_ABORT_S)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Leave Ctrl-C as it is: Ray's handler would stay, and end the process later with exit code 0."""
        self._controller = controller

    def _create_default_callbacks(self) -> list[Any]:
        left_out = _FOR_CLUSTERS if self._alone else ()
        return [made for made in super()._create_default_callbacks() if not isinstance(made, left_out)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if self._alone:
            for name, value in _SETTINGS_ALONE.items():  # they are read here, and handed to the controller
                os.environ.setdefault(name, value)
            if isinstance(settings["scaling_policy"], FixedScalingPolicy):
                settings["scaling_policy"] = _FixedPolicy(self.scaling_config)
        return super()._initialize_and_run_controller(**settings)


def free_places_of_the_dead() -> None:
    """Remove this job's placement groups whose controller is dead, as that of a killed trial: nothing else does."""
    job = ray.get_runtime_context().get_job_id()
    for packed in state._connect_and_get_accessor().get_placement_group_table():  # noqa: SLF001 - has what is public not
        group = gcs_pb2.PlacementGroupTableData.FromString(packed)
        key = ray.PlacementGroupID(group.placement_group_id)
        by_actor = group.creator_actor_id.strip(b"\xff")  # "dead" is also said of those of a driver, which has none
        if by_actor and group.creator_actor_dead and key.hex().endswith(job):
            remove_placement_group(PlacementGroup(key))


_SETTINGS_ALONE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
_FOR_CLUSTERS = (DatasetsCallback, PlacementGroupCleanerCallback, ControllerMetricsCallback, WorkerMetricsCallback)


class _FixedPolicy(FixedScalingPolicy):  # type: ignore[misc]
    """A fixed number of workers, of which no autoscaler hears; it lives in the controller's process."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Put the small barrier in place instead of asking for machines."""
        del train_run_context

        class NoBarrier:  # defined here, so that its process gets a copy and need not import this file
            def __init__(self, **_: Any) -> None:
                pass

        worker_group.SynchronizationActor = ray.remote(num_cpus=0)(NoBarrier)

    def _maybe_send_resource_request(self) -> None:
        pass
