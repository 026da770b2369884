"""Run a plan: from a ``Plan`` to a finished, tracked and registered run."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.capacity import waiting
from pipelines.planning.plan import Plan
from pipelines.records.home import Home
from pipelines.records.run_file import RunRecord, numbers_of
from pipelines.runs import launch
from pipelines.runs.checkpoint import Outcome
from pipelines.runs.progress import EpochListener, Progress, Send
from pipelines.runs.record import RunResult, assemble, facts_of, record_of
from pipelines.runs.registry import register_run
from pipelines.runs.tracking import EpochLog, Tracker


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


def run_training(
    plan: Plan,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    watch: Watch | None = None,
    on_message: Send | None = None,
) -> RunResult:
    """Train and score a plan; leave ``OUT/NAME/{adapter.safetensors, config.json, run.json, ...}``.

    A finished run is not repeated; one that was cut off continues after its last whole epoch. Both are recognised by
    their name, a digest of all that the result depends on. With one worker, a watched run trains in this very process;
    it draws no report, and is forgotten if its ``watch`` ends it.

    Args:
        plan: of the run.
        fresh: start over, even if the run is finished or can continue.
        say: gets lines for a reader.
        watch: a sweep that follows the run.
        on_message: gets every message of the workers.

    Raises:
        UserError: for every mistake that the user can correct; where possible, before any worker starts.
        DivergedError: the loss is not finite.
        RuntimeError: workers failed more often than ``scale.max_failures`` allows.
    """
    home = Home.at(plan.config.out)
    if fresh:
        home.discard(plan.name)
    record = home.finished(plan.name)
    if record is None:
        result = _train(plan, home, say, watch, on_message)
    else:
        say(f"{plan.name}: unchanged, finished before; reusing {home.path(plan.name)}")
        result = RunResult(home.path(plan.name), record, reused=True)
    if plan.config.tracking.register:
        register_run(result, plan.config, home=home, say=say)
    return result


def _train(
    plan: Plan, home: Home, say: Callable[[str], None], watch: Watch | None, on_message: Send | None
) -> RunResult:
    """Run the workers under a tracker, and publish what they leave."""
    if home.unfinished(plan.name):
        say(f"{plan.name}: found an unfinished run with the same settings; continuing it (--fresh starts over)")
    in_process = watch is not None and plan.config.scale.workers == 1
    if not in_process:
        for note in launch.check_machines(plan):  # before MLflow has a run that could not start
            say(f"{plan.name}: {note}")
    tracker = Tracker(plan.config.tracking, title=watch.title if watch else "", parent=watch.parent if watch else None)
    facts = facts_of(plan)
    tracker.start(plan.config, plan.name, facts)
    started = time.time()
    log = EpochLog(tracker, lambda line: say(f"{plan.name}: {line}"))
    progress = Progress(
        plan.name,
        plan.config.optim.epochs,
        say,
        on_epoch=[log, watch.on_epoch] if watch else [log],
        on_message=on_message,
        why_waiting=lambda: waiting(plan.config),
    )
    workers = launch.in_process if in_process else launch.on_ray
    with (
        _failing_with_the_run(tracker, plan, home, watch),
        workers(plan, home, progress, watched=watch is not None) as folder,
    ):
        outcome = Outcome.read(folder)
        log.complete(outcome.history)
        seconds = time.time() - started
        record = record_of(plan, outcome, facts, run_id=tracker.run_id, seconds=seconds, progress=progress)
        _publish(record, folder, tracker, home, report=watch is None)
    return RunResult(home.path(plan.name), record, reused=False)


def _publish(record: RunRecord, checkpoint: Path, tracker: Tracker, home: Home, *, report: bool) -> None:
    """Track the final numbers, and put the run's folder together in its place."""
    tracker.results(numbers_of(record.metrics.to_json()) | numbers_of({"cost": record.cost.to_json()}))
    with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
        assemble(Path(scratch), checkpoint, record, report=report)
        tracker.finish(Path(scratch))
        home.publish(Path(scratch), record.name)


@contextlib.contextmanager
def _failing_with_the_run(tracker: Tracker, plan: Plan, home: Home, watch: Watch | None) -> Iterator[None]:
    """End the tracked run with whatever ends the block; what a sweep stopped is forgotten."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)  # SystemExit: of a sweep, or of 'ray job stop'
        by_sweep = watch is not None and isinstance(error, SystemExit)
        reason = f"{type(error).__name__}: {error}"
        if stopped:
            reason = "stopped by the sweep" if by_sweep else "stopped by the user"
        with contextlib.suppress(Exception):  # the first error is the one to show
            if by_sweep:
                home.give_up(plan.name)
            tracker.fail(reason, stopped=stopped)
        raise
