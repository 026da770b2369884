"""Lost workers and changes of their number, as Ray Train's controller knows them and no worker can."""

from __future__ import annotations

import contextlib
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

from pipelines.runs.progress import Lost, Resized, Send
from vlmodels.errors import UserError

_REASON_LENGTH = 200


class LossReporter(ControllerCallback):  # type: ignore[misc]  # Ray is untyped here
    """Callback of Ray Train's controller that sends ``Lost`` and ``Resized``: docs/RAY.md#lost-workers.

    Args:
        send: takes the messages.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._workers = 0

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Report what a new state means; while Ray waits, it repeats the same state."""
        if current_state is not previous_state:
            with contextlib.suppress(Exception):  # messages are a courtesy, and an error here would end the run
                self._report(current_state)

    def _report(self, state: Any) -> None:
        if isinstance(state, SchedulingState):
            workers = state.scaling_decision.num_workers
            if self._workers not in (0, workers):
                self._send(Resized(workers, self._workers))
            self._workers = workers
        ends = isinstance(state, ShuttingDownState)
        error = getattr(state.next_state if ends else state, "training_failed_error", None)
        if error is None or state.is_terminal():
            return
        if loss := _ranks_and_reason(error):
            ranks, reason = loss
            counted = not isinstance(error, ControllerError)
            self._send(Lost(ranks, reason, retried=not ends, counted=counted))


def _ranks_and_reason(error: TrainingFailedError) -> tuple[tuple[int, ...], str] | None:
    """Return the ranks that failed and why.

    None for a mistake of the user's, which the worker reported itself, and while Ray waits for room.
    """
    if isinstance(error, PreemptionError):
        return tuple(error.preemption_info.preempted_ranks), "the machine is being taken back"
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        if isinstance(failure, WorkerGroupStartupTimeoutError):
            return None
        return (), _reason(failure.__cause__ or failure)
    failures = error.worker_failures
    if not failures:  # of all at once, such as a collective that hangs
        first_line = str(error).partition("\n")[2].strip().partition("\n")[0]  # after Ray's own heading
        return (), f"{type(error).__name__}: {first_line[:_REASON_LENGTH]}"
    if any(isinstance(failure, UserError) for failure in failures.values()):
        return None
    # The others fail only because these are gone.
    gone = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)
    failures = {rank: failure for rank, failure in failures.items() if isinstance(failure, gone)} or failures
    return tuple(sorted(failures)), _reason(failures[min(failures)])


def _reason(failure: BaseException) -> str:
    failure = getattr(failure, "health_check_failure", failure)
    if isinstance(failure, ActorUnavailableError):  # a machine that left may not be known to have, yet
        return "its process or machine cannot be reached"
    if isinstance(failure, RayActorError) and "its node has died" in str(failure):
        return "the machine left the cluster"
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [""]
    line = lines[-1 if isinstance(failure, RayActorError) else 0]  # of an actor's death the cause comes last
    return f"{type(failure).__name__}: {line[:_REASON_LENGTH]}"
