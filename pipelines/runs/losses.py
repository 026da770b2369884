"""What Ray Train's controller knows and no worker can tell: who was lost and why, and when the number changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import ControllerError, PreemptionError, TrainingFailedError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import SchedulingState, ShuttingDownState

from vlmodels.errors import UserError


class ControllerNews(ControllerCallback):  # type: ignore[misc]  # Ray is untyped here
    """Callback of Ray Train that sends ``lost`` and ``resized`` news.

    ``UserCallback`` would hear of worker errors alone, and not whether they are got over.

    Args:
        send: takes the news.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._workers = 0

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Send what the new state says; while Ray waits, it says the same state again and again."""
        if current_state is not previous_state:
            with contextlib.suppress(Exception):  # news is a courtesy, and an error here would end the run
                self._tell(current_state)

    def _tell(self, current_state: Any) -> None:
        if isinstance(current_state, SchedulingState):
            workers = current_state.scaling_decision.num_workers
            if self._workers not in (0, workers):
                self._send({"kind": "resized", "workers": workers, "before": self._workers})
            self._workers = workers
        ends = isinstance(current_state, ShuttingDownState)
        error = getattr(current_state.next_state if ends else current_state, "training_failed_error", None)
        lost = error is not None and not current_state.is_terminal() and _lost(error)
        if lost:
            counted = not isinstance(error, ControllerError)  # against scale.max_failures
            self._send({"kind": "lost", **lost, "again": not ends, "counted": counted})


def _lost(error: TrainingFailedError) -> dict[str, Any]:
    """Ranks that failed, and why; nothing of a mistake of the user's, which the worker told, nor of a wait for room."""
    if isinstance(error, PreemptionError):
        return {"ranks": error.preemption_info.preempted_ranks, "reason": "the machine is being taken back"}
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        waits = isinstance(failure, WorkerGroupStartupTimeoutError)
        return {} if waits else {"ranks": [], "reason": _why(failure.__cause__ or failure)}
    failures = error.worker_failures
    if not failures:  # of all at once, as a collective that hangs
        told = str(error).partition("\n")[2].strip().partition("\n")[0]  # Ray's own heading comes first
        return {"ranks": [], "reason": f"{type(error).__name__}: {told[:200]}"}
    if any(isinstance(failure, UserError) for failure in failures.values()):
        return {}
    # The others fail because those are gone.
    gone = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)
    failures = {rank: failure for rank, failure in failures.items() if isinstance(failure, gone)} or failures
    return {"ranks": sorted(failures), "reason": _why(failures[min(failures)])}


def _why(failure: BaseException) -> str:
    failure = getattr(failure, "health_check_failure", failure)
    if isinstance(failure, ActorUnavailableError):  # a machine that is gone may not be known to be, yet
        return "its process or machine cannot be reached"
    if isinstance(failure, RayActorError) and "its node has died" in str(failure):
        return "the machine left the cluster"
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [""]
    line = lines[-1 if isinstance(failure, RayActorError) else 0]  # of an actor's death the cause comes last
    return f"{type(failure).__name__}: {line[:200]}"
