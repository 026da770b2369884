"""Start workers for runs: one in this process, or ranks of Ray Train that do one run after the other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.cluster.capacity import can_grow, resources_of_worker, waiting
from pipelines.cluster.node_facts import own
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import connect, release_on_error
from pipelines.cluster.view import CONNECTED
from pipelines.config.plain import digest_of
from pipelines.runs.board import Board, JobEnded, Jobs
from pipelines.runs.contexts import LocalContext
from pipelines.runs.progress import Message
from pipelines.runs.worker import train_worker, work
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import ScaleConfig
    from pipelines.planning.plan import Plan
    from pipelines.runs.attempt import Attempt


PATIENCE_S = 6 * 3600
"""For ranks that wait for one whose machine has no shard yet: docs/RAY.md#where-ranks-meet."""


def in_process(attempt: Attempt, *, own_process: bool) -> None:
    """Run an attempt's only worker in this process; what ends it is its error.

    Args:
        attempt: at a run of one worker.
        own_process: whether the process does nothing but runs.

    Raises:
        KeyboardInterrupt, SystemExit: the user, or a sweep, stopped it.
    """
    gpu = attempt.plan.config.scale.gpu
    try:
        attempt.begin()
        with LocalContext(attempt.home, attempt.name, gpu=gpu, own_process=own_process) as context:
            end = work(attempt.job(), context, attempt.progress.hear)
        attempt.end(end)
    except BaseException as error:
        attempt.fail(error)
        if not isinstance(error, Exception):
            raise


def check_machines(plans: Sequence[Plan]) -> list[str]:
    """Connect to Ray and check that its machines can run the workers; return notes for the reader.

    Raises:
        UserError: a machine that cannot run a worker, or too little in the cluster.
    """
    import pipelines.runs.trainer  # noqa: F401 - while Ray starts

    connect()
    asked = {digest_of([plan.config.scale, plan.config.out, plan.config.backbone, plan.data]): plan for plan in plans}
    found = [check_cluster(plan.config, data=plan.data) for plan in asked.values()]
    return list(dict.fromkeys(note for notes in found for note in notes))


def on_ray(attempts: Sequence[Attempt]) -> None:
    """Run attempts of one scale, one after the other, by one group of workers on Ray; after ``check_machines``.

    Each attempt has its result or its error at the end. An attempt whose workers fail too often ends; the others go on
    with new workers.

    Raises:
        KeyboardInterrupt, SystemExit: the user stopped them; the one at hand has ended with that.
    """
    group = _Group(attempts)
    try:
        with release_on_error(), group.board:
            here = own()
            for attempt in attempts:
                group.board.add(attempt.name, attempt.job(here))
            while group.left:
                group.run()
    except BaseException as error:
        for attempt in group.left:
            attempt.fail(error)
        raise
    finally:
        with contextlib.suppress(OSError):
            attempts[0].home.give_up(group.folder)


class _Group:
    """A group of workers, as its driver sees it."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._by_name = {attempt.name: attempt for attempt in attempts}
        self.folder = f"workers-{attempts[0].name}"
        self.board = Board(self._hear, idle=self._note_waiting, working=self._working)

    @property
    def left(self) -> list[Attempt]:
        """Attempts that have not ended."""
        return [attempt for attempt in self._by_name.values() if not attempt.ended]

    def _hear(self, name: str, message: Message | JobEnded) -> None:
        attempt = self._by_name.get(name) or next(iter(self.left), None)
        if attempt is None or attempt.ended:
            return
        attempt.hear(message)
        if attempt.error is not None and not isinstance(message, JobEnded):
            attempt.note(f"{attempt.error}; its workers leave it")
            self.board.drop(attempt.name)

    def _working(self) -> bool:
        left = self.left
        return not left or left[0].progress.working

    def _note_waiting(self) -> None:
        for attempt in self.left[:1]:
            if line := waiting(attempt.plan.config):
                attempt.note(line)

    def run(self) -> None:
        """Let workers do what is left; end the attempt at which they failed too often, so at least one ends."""
        from ray.exceptions import RayActorError
        from ray.train import ControllerError, TrainingFailedError

        first = self.left[0]
        begins = threading.Thread(target=self._begin, args=(first,), name="begin")
        begins.start()  # opening MLflow takes as long as workers take to start
        error: Exception | None = None
        try:
            make_trainer(first, self.board.jobs, folder=self.folder).fit()
        except (TrainingFailedError, RayActorError) as failure:  # of workers, or of the controller
            error = failure
        finally:
            begins.join()
        self.board.catch_up()
        if error is None or not isinstance(error, TrainingFailedError) or isinstance(error, ControllerError):
            for attempt in self.left:  # no workers, for this run or any other
                self._give_up(attempt, _given_up(attempt, error))
        elif self.left:
            self._judge(self.left[0], error, alone=self.left[0] is first)

    def _judge(self, failed: Attempt, error: Exception, *, alone: bool) -> None:
        """End the attempt at which workers failed, unless others (``alone`` is False) may have spent their failures."""
        limit = failed.plan.config.scale.max_failures
        if failed.progress.mistake:
            kept = "what was trained is kept, the same command continues there"
            mistake = UserError(f"{failed.progress.mistake}; {kept}")
            mistake.__cause__ = error
            self._give_up(failed, mistake)
        elif alone or failed.progress.losses > limit:
            self._give_up(failed, _given_up(failed, error, f" (scale.max_failures={limit})"))
        else:
            failed.note("the other losses were those of runs before; starting again from the last epoch kept")

    def _begin(self, attempt: Attempt) -> None:
        try:
            attempt.begin()
        except Exception as error:  # noqa: BLE001 - it ends this run alone
            self._give_up(attempt, error)

    def _give_up(self, attempt: Attempt, error: Exception) -> None:
        attempt.fail(error)
        self.board.drop(attempt.name)


def _given_up(attempt: Attempt, error: Exception | None, limit: str = "") -> RuntimeError:
    failure = RuntimeError(f"{attempt.name}: given up{limit}: {error or 'the workers ended without a result'}")
    failure.__cause__ = error
    return failure


def make_trainer(attempt: Attempt, jobs: Jobs, *, folder: str) -> Any:
    """Return Ray Train's trainer whose workers do ``jobs``, at the scale of ``attempt``; ``folder`` is its own."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from pipelines.cluster.process_group import TorchGroup
    from pipelines.runs.lost_workers import LossReporter
    from pipelines.runs.trainer import Trainer

    scale, home = attempt.plan.config.scale, attempt.home
    return Trainer(
        train_worker,
        alone=is_alone(),
        train_loop_config={"jobs": jobs},
        torch_config=TorchGroup(backend="nccl" if scale.gpu else "gloo", timeout_s=PATIENCE_S),
        scaling_config=ScalingConfig(
            num_workers=_workers(scale),
            elastic_resize_monitor_interval_s=scale.regrow_s,
            use_gpu=scale.gpu,
            resources_per_worker=resources_of_worker(scale),
        ),
        run_config=RunConfig(
            name=folder,
            storage_path=home.scratch,
            storage_filesystem=home.filesystem,  # ours: it waits for a store that is away
            failure_config=FailureConfig(max_failures=scale.max_failures),
            callbacks=[LossReporter(jobs.mailbox(""))],
        ),
    )


def is_alone() -> bool:
    """Return whether the Ray that this process is connected to is one machine without an autoscaler, and unnamed."""
    nodes = len(CONNECTED.nodes())
    return not os.environ.get("RAY_ADDRESS") and nodes == 1 and not can_grow(nodes)


def _workers(scale: ScaleConfig) -> int | tuple[int, int]:
    """Return Ray Train's number of workers, or the least and the most of them."""
    return (scale.min_workers, scale.workers) if 0 < scale.min_workers < scale.workers else scale.workers
