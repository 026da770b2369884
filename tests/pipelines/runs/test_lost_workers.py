"""Lost workers and another number of them, from Ray Train's controller to the reader's line."""

from __future__ import annotations

import pytest
from ray import cloudpickle
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.train import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.controller import state
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus
from ray.train.v2.api.preemption import PreemptionInfo

from pipelines.runs.lost_workers import LossReporter
from pipelines.runs.progress import EpochDone, Progress, WorkerUp
from vlmodels.errors import UserError

RETRIES = "starting again from the last epoch kept"
GIVES_UP = "giving up; the same command continues from the last epoch kept"
LIMIT = ", scale.max_failures=N tries more often"


def died(why):
    """What Ray Train finds where a worker's process is gone, as Ray itself puts it."""
    about = ActorDiedErrorContext(
        error_message=why, actor_id=bytes(16), class_name="RayTrainWorker", node_ip_address="10.0.0.2"
    )
    error = ActorDiedError(about)
    return WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: ...", failure=error)


MACHINE = died(
    "The actor died because its node has died. Node Id: 12ab\n\tthe actor's node was terminated unexpectedly"
)
PROCESS = died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR")
SILENT = WorkerHealthCheckFailedError("A worker health check failed.", failure=ActorUnavailableError("RPC error", None))
PEER = UserExceptionWithTraceback(RuntimeError("Read error: Connection reset by peer\nmore"), "")


def worker_failure(**failures):
    """The error of ranks ``rN``."""
    found = {int(rank[1:]): WorkerStatus(running=False, error=error) for rank, error in failures.items()}
    return WorkerGroupPollStatus(found).get_worker_group_error()


def start_failure():
    error = WorkerGroupStartupFailedError("At least one of the worker actors failed to initialize.")
    error.__cause__ = MACHINE.health_check_failure
    return ControllerError(error)


def scheduling(workers):
    return state.SchedulingState(ResizeDecision(workers, {"CPU": 1}))


def ended(error):
    return state.ShuttingDownState(state.ErroredState(error)), state.ErroredState(error)


class Run:
    """A run of two workers on two machines, and the lines about it."""

    def __init__(self):
        self.lines = []
        self.progress = Progress("run", 3, self.lines.append)
        self.reporter = LossReporter(self.progress.hear)
        self.state = state.InitializingState()
        self.enter(scheduling(2), state.RunningState())
        for rank in range(2):
            self.progress.hear(WorkerUp(rank, 2, 7, f"10.0.0.{rank + 1}"))
        assert self.lines.pop().startswith("run: 2 workers are up after 0 s, on 10.0.0.1 (rank 0), 10.0.0.2 (rank 1)")

    def enter(self, *states):
        for entered in states:
            self.reporter.after_controller_state_update(self.state, entered)
            self.state = entered
        return self.lines


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (worker_failure(r1=MACHINE), "lost rank 1 on 10.0.0.2 (the machine left the cluster)"),
        (worker_failure(r0=PEER, r1=MACHINE), "lost rank 1 on 10.0.0.2 (the machine left the cluster)"),
        (worker_failure(r1=SILENT), "lost rank 1 on 10.0.0.2 (its process or machine cannot be reached)"),
        (
            worker_failure(r0=PEER, r1=PROCESS),
            "lost rank 1 on 10.0.0.2 (ActorDiedError: The actor is dead because its worker process has died. "
            "Worker exit type: SYSTEM_ERROR)",
        ),
        (
            worker_failure(r0=PEER, r1=PEER),
            "lost rank 0 on 10.0.0.1, 1 on 10.0.0.2 (RuntimeError: Read error: Connection reset by peer)",
        ),
        (
            PreemptionError(PreemptionInfo(None, {"12ab": [1]})),
            "lost rank 1 on 10.0.0.2 (the machine is being taken back)",
        ),
        (WorkerGroupError("NCCL hangs\nfor long", {}), "lost the workers (WorkerGroupError: NCCL hangs)"),
        (start_failure(), "lost the workers (the machine left the cluster)"),
        (ControllerError(OSError(28, "No space left")), "lost the workers (OSError: [Errno 28] No space left)"),
    ],
)
def test_lost_workers_are_named_with_reason_and_consequence(error, line):
    assert Run().enter(state.RestartingState(error), scheduling(2)) == [f"run: {line}; {RETRIES}"]
    limit = "" if isinstance(error, ControllerError) else LIMIT
    assert Run().enter(*ended(error)) == [f"run: {line}; {GIVES_UP}{limit}"]


def test_a_state_that_ray_repeats_while_it_waits_is_reported_once():
    waiting = state.RestartingState(worker_failure(r1=MACHINE))
    assert len(Run().enter(waiting, waiting, waiting)) == 1


def test_messages_that_fail_do_not_end_the_run():
    def fails(message):
        raise OSError

    LossReporter(fails).after_controller_state_update(None, state.RestartingState(worker_failure(r1=MACHINE)))


def test_what_others_report_is_not_repeated():
    mistake = worker_failure(r0=PEER, r1=UserExceptionWithTraceback(UserError("the disk is full"), ""))
    assert Run().enter(state.RestartingState(mistake), *ended(mistake)) == []
    assert Run().enter(state.ReschedulingState(ControllerError(WorkerGroupStartupTimeoutError(2)))) == []
    assert Run().enter(state.ShuttingDownState(state.FinishedState()), state.FinishedState()) == []


def test_another_number_of_workers_is_reported():
    run = Run()
    run.enter(state.RestartingState(worker_failure(r1=MACHINE)), scheduling(1), state.RunningState())
    assert not run.progress.working
    assert run.lines[1:] == ["run: continuing with 1 worker instead of 2, as no room was found for more"]
    run.progress.hear(WorkerUp(0, 1, 7, "10.0.0.1"))
    assert run.progress.working
    assert run.lines[2].startswith("run: 1 worker is up")
    run.progress.hear(
        EpochDone({"epoch": 1.0, "loss": 1.0, "train_top1": 50.0, "clips_per_second": 1.0, "seconds": 1.0})
    )
    assert "epoch 1/3" in run.lines.pop()
    run.enter(state.ResizingState(ResizeDecision(2, {})), scheduling(2), state.RunningState())
    assert run.lines[3:] == [
        "run: continuing with 2 workers instead of 1 from the last epoch kept, as there is room again"
    ]


def test_the_reporter_travels_to_the_controller():
    reporter = cloudpickle.loads(cloudpickle.dumps(LossReporter(print)))
    reporter.after_controller_state_update(state.InitializingState(), scheduling(2))
    assert reporter.on_controller_start_worker_group(scaling_config=None, num_workers=2) is None
