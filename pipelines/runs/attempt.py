"""A run on its way from its plan to its published folder, as the driver sees it: tracked, followed, recorded."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.schema import TrackingConfig
from pipelines.records.run_file import RunRecord, numbers_of, write
from pipelines.runs.board import JobEnded, WorkerEnd
from pipelines.runs.checkpoint import Outcome
from pipelines.runs.data_inputs import inputs_of
from pipelines.runs.mlflow_store import first_line
from pipelines.runs.pages import draw_pages
from pipelines.runs.progress import EpochListener, Message, Progress, Send
from pipelines.runs.record import RunResult, assemble, facts_of, record_of
from pipelines.runs.registry import register_run
from pipelines.runs.tracking import EpochLog, LoadLog, Tracker
from pipelines.runs.worker import Job
from pipelines.storage.place import why
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.cluster.node_facts import Versions
    from pipelines.planning.plan import Plan
    from pipelines.records.home import Home


@dataclass(frozen=True)
class Watch:
    """How a sweep follows a run: as a child of its own MLflow run, and epoch by epoch.

    Attributes:
        title: the run's name in MLflow.
        on_epoch: gets each epoch's numbers, with the accuracy on held-out clips; may raise to end the run.
        parent: the MLflow run of the sweep.
    """

    title: str
    on_epoch: EpochListener
    parent: str | None = None


class Attempt:
    """One attempt at a run: ``begin``, then ``hear`` what the workers say, then ``end``, or ``fail``.

    Args:
        plan: of the run.
        home: where it is kept.
        say: gets lines for a reader.
        watch: a sweep that follows it.
        on_message: gets every message of the workers.

    Attributes:
        result: of the run once it is finished.
        error: what ended the attempt otherwise.
    """

    def __init__(
        self,
        plan: Plan,
        home: Home,
        *,
        say: Callable[[str], None] = print,
        watch: Watch | None = None,
        on_message: Send | None = None,
    ) -> None:
        self.plan = plan
        self.home = home
        self.name = plan.name
        self.result: RunResult | None = None
        self.error: BaseException | None = None
        self.begun = False  # whether the tracked run is open
        self._beginning = threading.Lock()
        self._watch = watch
        self._say = say
        title, parent = (watch.title, watch.parent) if watch else ("", None)
        self._tracker = Tracker(plan.config.tracking, title=title, parent=parent, say=self.note)
        self._delivery = (
            f"{plan.name}.undelivered"  # a note, beside the checkpoints, that MLflow has not all of the run
        )
        self._log = EpochLog(self._tracker, self.note)
        on_epoch: list[EpochListener] = [self._log, watch.on_epoch] if watch else [self._log]
        epochs = plan.config.optim.epochs
        load = LoadLog(self._tracker, several=plan.config.scale.workers > 1)
        self.progress = Progress(plan.name, epochs, say, on_epoch=on_epoch, on_message=on_message, on_load=load)

    @property
    def ended(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None

    @property
    def watched(self) -> bool:
        """Whether a sweep follows the run."""
        return self._watch is not None

    @property
    def outcome(self) -> RunResult | Exception:
        """The result, or the error; of an attempt that has ended."""
        if isinstance(self.error, Exception):
            return self.error
        if self.result is None:
            raise RuntimeError(f"{self.name} has not ended")
        return self.result

    def complete(self) -> None:
        """Draw what is still to be drawn of a finished run, unless a sweep follows it, and register its model.

        What MLflow has missed of a run that had finished before is delivered first.

        Raises:
            UserError: the model cannot be registered.
        """
        if self.result is None:
            return
        tracking = self.plan.config.tracking
        if self.result.reused and tracking.uri is not None and self.home.recall(self._delivery) is not None:
            self._deliver_again(self.result.record)
        if not self.watched:
            try:
                if not draw_pages(self.result, tracking, self.home, say=self._say):
                    self.home.remember(self._delivery, self.result.record.tracking.run_id or "")
            except Exception as error:  # noqa: BLE001 - the run is whole without
                self.note(
                    f"its report could not be drawn ({type(error).__name__}: {error}); the same command tries again"
                )
        if tracking.register:
            register_run(self.result, self.plan.config, home=self.home, say=self._say)

    def note(self, line: str) -> None:
        """Print a line about the run."""
        self._say(f"{self.name}: {line}")

    def job(self, expected: Versions | None = None) -> Job:
        """Return what the workers have to do, on machines that are as ``expected``; they get no keys of MLflow's."""
        plan = self.plan
        sampled = plan.config.tracking.system_metrics_s if plan.config.tracking.uri else 0.0
        config = replace(plan.config, tracking=TrackingConfig(system_metrics_s=sampled))
        return Job(
            plan.name,
            self.home,
            config,
            plan.split,
            plan.descriptions,
            start=plan.start.read_bytes() if plan.start else b"",
            watched=self._watch is not None,
            expected=expected,
        )

    def begin(self) -> None:
        """Open the tracked run and start the clock, unless that is done.

        Raises:
            UserError: the tracking store cannot be used.
        """
        with self._beginning:
            if not self.begun and not self.ended:
                self._begin()
                self.begun = True

    def _begin(self) -> None:
        self._facts = facts_of(self.plan)
        config = self.plan.config
        inputs = inputs_of(self.plan.split, config.data.dir or "", test=config.test)
        self._tracker.start(config, self.name, self._facts, self.home.path(self.name), inputs)
        self._started = time.time()
        self.progress.begin()

    def hear(self, message: Message | JobEnded) -> None:
        """Take a message of the workers, or their end; what goes wrong with it ends the attempt."""
        if self.ended:  # of a job that was given out again before its end was known
            return
        try:
            self.begin()
            if isinstance(message, JobEnded):
                self.end(message.end)
            else:
                self.progress.hear(message)
        except Exception as error:  # noqa: BLE001 - it is this run's; the others go on
            self.fail(error)

    def end(self, end: WorkerEnd) -> None:
        """Record and publish what the workers left.

        Raises:
            DivergedError: the loss or a score is not finite.
            UserError: a mistake in the set-up, or a full disk.
        """
        if end.error:
            raise (DivergedError if end.diverged else UserError)(end.error)
        with self.home.kept(self.name) as folder:
            if folder is None:
                raise RuntimeError(f"{self.name}: the workers ended without a result")
            outcome = Outcome.read(folder)
            record = record_of(
                self.plan,
                outcome,
                self._facts,
                run_id=self._tracker.run_id,
                seconds=time.time() - self._started,
                progress=self.progress,
            )
            with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
                record = self._publish(record, folder, Path(scratch))
                self.result = RunResult(self.home.path(self.name), record, reused=False)
                self._deliver(record, Path(scratch))

    def _publish(self, record: RunRecord, checkpoint: Path, scratch: Path) -> RunRecord:
        """Put the run's folder together in ``scratch`` and in its place; return the record as it is there.

        Raises:
            UserError: the disk is full, or the place cannot be written.
        """
        try:
            record = assemble(scratch, checkpoint, record)
            if record.tracking.run_id is not None:
                self.home.remember(self._delivery, record.tracking.run_id)
            self.home.publish(scratch, record.name)
            write(scratch, record)
        except OSError as error:
            raise UserError(
                f"{self.home.path(self.name)} cannot be written ({why(error)}); free some space, what was trained is "
                "kept, the same command finishes the run"
            ) from error
        return record

    def _deliver(self, record: RunRecord, folder: Path, known: Collection[float] = ()) -> None:
        """Give MLflow the final numbers and the folder; the same command delivers later what it does not take now."""
        try:
            self._log.complete([epoch.to_json() for epoch in record.history], known=known)
            decided = record.decision.numbers() if record.decision is not None else {}
            numbers = numbers_of(record.metrics.to_json()) | numbers_of({"cost": record.cost.to_json()})
            self._tracker.results(numbers | decided)
            self._tracker.finish(folder)
            self.home.forget(self._delivery)
        except Exception as error:  # noqa: BLE001 - the run is whole and in its place
            self.note(
                f"MLflow did not take the end of the run ({first_line(error)[:200]}); the run is whole in "
                f"{self.home.path(self.name)}, and the same command delivers it"
            )

    def _deliver_again(self, record: RunRecord) -> None:
        if record.tracking.run_id is None:
            return
        try:
            known = self._tracker.resume(record.tracking.run_id)
        except Exception as error:  # noqa: BLE001 - as above
            self.note(f"MLflow has not all of the run, and cannot be given it now ({first_line(error)[:200]})")
            return
        with self.home.local_copy(record.name) as folder:
            self._deliver(record, folder, known)

    def mistake(self, cause: Exception) -> UserError:
        """Return the user's mistake that ended a worker while it worked, and what to do then."""
        mistake = UserError(f"{self.progress.mistake}; what was trained is kept, the same command continues there")
        mistake.__cause__ = cause
        return mistake

    def fail(self, error: BaseException) -> None:
        """End the attempt, and its tracked run, with an error; what a sweep stopped is forgotten."""
        with self._beginning:  # what is being opened is there to be closed
            self.error = error
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)  # SystemExit: of a sweep, or of 'ray job stop'
        by_sweep = self._watch is not None and isinstance(error, SystemExit)
        reason = f"{type(error).__name__}: {error}"
        if stopped:
            reason = "stopped by the sweep" if by_sweep else "stopped by the user"
        try:
            if by_sweep:
                self.home.give_up(self.name)
            self._tracker.fail(reason, stopped=stopped)
        except Exception as second:  # noqa: BLE001 - the first error is the one to show
            self.note(f"MLflow did not take the end of the run ({type(second).__name__})")
