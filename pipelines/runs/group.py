"""A group of workers on Ray, as its driver sees it: started once, it does one run after the other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.cluster.capacity import can_grow, resources_of_worker, waiting
from pipelines.cluster.node_facts import own
from pipelines.cluster.view import CONNECTED
from pipelines.runs.board import Board, JobEnded, Jobs
from pipelines.runs.progress import Message
from pipelines.runs.worker import train_worker

if TYPE_CHECKING:
    from pipelines.config.schema import ScaleConfig
    from pipelines.runs.attempt import Attempt
    from pipelines.runs.trainer import Trainer


PATIENCE_S = 6 * 3600
"""For ranks that wait for one whose machine has no shard yet: docs/RAY.md#where-ranks-meet."""
_LOOK_S = 0.05


class Group:
    """Workers of one scale: ``add`` attempts, then ``run`` until none is left.

    Args:
        folder: Ray Train's own, in the folder of runs.

    Attributes:
        board: between driver and workers; to be open while they run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.board = Board(self._hear, idle=self._note_waiting, working=self._working)
        self._by_name: dict[str, Attempt] = {}
        self._trainer: Trainer | None = None

    @property
    def left(self) -> list[Attempt]:
        """Attempts that have not ended."""
        return [attempt for attempt in list(self._by_name.values()) if not attempt.ended]

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Give the workers more to do."""
        here = own()
        self._by_name = {attempt.name: attempt for attempt in [*self.left, *attempts]}  # others and their data may go
        for attempt in attempts:
            self.board.add(attempt.name, attempt.job(here))

    def run(self) -> None:
        """Let workers do what is left; end the attempt at which they failed too often, so at least one ends."""
        from ray.exceptions import RayActorError
        from ray.train import ControllerError, TrainingFailedError

        from pipelines.runs.trainer import free_places_of_the_dead

        free_places_of_the_dead()
        first = self.left[0]
        begins = threading.Thread(target=self._begin, args=(first,), name="begin")
        begins.start()  # opening MLflow takes as long as workers take to start
        error: Exception | None = None
        try:
            self._trainer = make_trainer(first, self.board.jobs, folder=self.folder)
            self._trainer.fit()
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

    def abort(self) -> None:
        """End the workers, whatever they do."""
        if self._trainer is not None:
            self._trainer.abort()

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
        from pipelines.runs.trainer import free_places_of_the_dead

        free_places_of_the_dead()
        for attempt in self.left[:1]:
            if line := waiting(attempt.plan.config):
                attempt.note(line)

    def _judge(self, failed: Attempt, error: Exception, *, alone: bool) -> None:
        """End the attempt at which workers failed, unless others (``alone`` is False) may have spent their failures."""
        limit = failed.plan.config.scale.max_failures
        if failed.progress.mistake:
            self._give_up(failed, failed.mistake(error))
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


class KeptGroup:
    """A group whose workers wait for the next attempt after each, until this process ends.

    Args:
        key: of what the workers can run.
        folder: as of ``Group``.
    """

    def __init__(self, key: str, folder: str) -> None:
        self._key = key
        self._group = Group(folder)
        self._group.board.__enter__()
        self._more = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._work, name="workers", daemon=True)
        self._thread.start()

    def serves(self, key: str) -> bool:
        """Return whether the group can run attempts of ``key``."""
        return self._key == key and not self._over

    def do(self, attempt: Attempt) -> None:
        """Run an attempt; it has its result or its error at the end."""
        with self._more:
            self._group.add([attempt])
            self._more.notify()
        while not attempt.ended:
            time.sleep(_LOOK_S)
        if attempt.error is not None and not self._group.board.has_ended(attempt.name):
            self.end()  # workers may still be at it

    def end(self) -> None:
        """End the workers."""
        with self._more:
            self._over = True
            self._more.notify()
        self._group.abort()
        self._group.board.__exit__()

    def _work(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._over or self._group.left)
                if self._over:
                    return
            try:
                self._group.run()
            except BaseException as error:  # noqa: BLE001 - the attempt's own thread raises it
                for attempt in self._group.left:
                    attempt.fail(error)


def _given_up(attempt: Attempt, error: Exception | None, limit: str = "") -> RuntimeError:
    failure = RuntimeError(f"{attempt.name}: given up{limit}: {error or 'the workers ended without a result'}")
    failure.__cause__ = error
    return failure


def make_trainer(attempt: Attempt, jobs: Jobs, *, folder: str) -> Trainer:
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
