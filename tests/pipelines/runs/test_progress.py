"""What a reader is told of lost workers and of another number of them, from what Ray Train's controller knows."""

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

from pipelines.runs.losses import ControllerNews
from pipelines.runs.progress import Progress
from vlmodels.errors import UserError

GOES_ON = "starting again from the last epoch kept"
GIVES_UP = "giving up; the same command goes on from the last epoch kept"
OFTEN = ", scale.max_failures=N tries more often"


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


class Told:
    """A run of two workers on two machines, and what is said of it."""

    def __init__(self):
        self.said = []
        self.progress = Progress("run", 3, tracker=None, say=self.said.append)
        self.news = ControllerNews(self.progress.hear)
        self.state = state.InitializingState()
        self.enter(scheduling(2), state.RunningState())
        for rank in range(2):
            self.progress.hear({"kind": "worker", "rank": rank, "world": 2, "pid": 7, "host": f"10.0.0.{rank + 1}"})
        assert self.said.pop().startswith("run: 2 workers are up after 0 s, on 10.0.0.1 (rank 0), 10.0.0.2 (rank 1)")

    def enter(self, *states):
        for entered in states:
            self.news.after_controller_state_update(self.state, entered)
            self.state = entered
        return self.said


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_who_is_lost_is_told_and_whether_it_is_got_over(error, said):
    assert Told().enter(state.RestartingState(error), scheduling(2)) == [f"run: {said}; {GOES_ON}"]
    often = "" if isinstance(error, ControllerError) else OFTEN
    assert Told().enter(*ended(error)) == [f"run: {said}; {GIVES_UP}{often}"]


def test_a_state_that_ray_repeats_while_it_waits_is_told_once():
    waiting = state.RestartingState(worker_failure(r1=MACHINE))
    assert len(Told().enter(waiting, waiting, waiting)) == 1


def test_news_that_fail_do_not_end_the_run():
    def fails(item):
        raise OSError

    ControllerNews(fails).after_controller_state_update(None, state.RestartingState(worker_failure(r1=MACHINE)))


def test_what_others_tell_is_not_told_again():
    mistake = worker_failure(r0=PEER, r1=UserExceptionWithTraceback(UserError("the disk is full"), ""))
    assert Told().enter(state.RestartingState(mistake), *ended(mistake)) == []
    assert Told().enter(state.ReschedulingState(ControllerError(WorkerGroupStartupTimeoutError(2)))) == []
    assert Told().enter(state.ShuttingDownState(state.FinishedState()), state.FinishedState()) == []


def test_another_number_of_workers_is_told():
    run = Told()
    run.enter(state.RestartingState(worker_failure(r1=MACHINE)), scheduling(1), state.RunningState())
    assert not run.progress._working
    assert run.said[1:] == ["run: going on with 1 worker instead of 2, as no room was found for more"]
    run.progress.hear({"kind": "worker", "rank": 0, "world": 1, "pid": 7, "host": "10.0.0.1"})
    assert run.said[2].startswith("run: 1 worker is up")
    run.progress.seen.add(1)
    run.enter(state.ResizingState(ResizeDecision(2, {})), scheduling(2), state.RunningState())
    assert run.said[3:] == [
        "run: going on with 2 workers instead of 1 from the last epoch kept, as there is room again"
    ]


def test_the_news_travel_to_the_controller():
    news = cloudpickle.loads(cloudpickle.dumps(ControllerNews(print)))
    news.after_controller_state_update(state.InitializingState(), scheduling(2))
    assert news.on_controller_start_worker_group(scaling_config=None, num_workers=2) is None
