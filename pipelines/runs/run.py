"""``run_training``: one run from configuration to a finished folder; scripts and the trials of sweeps call it."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.capacity import waiting
from pipelines.config.schema import TrainConfig
from pipelines.planning.plan import Plan, plan_run
from pipelines.records.home import Home
from pipelines.records.run_file import numbers_of
from pipelines.runs import launch
from pipelines.runs.progress import Progress
from pipelines.runs.record import RunResult, assemble, facts_of, record_of
from pipelines.runs.registry import registered
from pipelines.runs.tracking import Tracker


@dataclass(frozen=True)
class Watch:
    """How a sweep follows a run: as a child of its own MLflow run, and epoch by epoch.

    Attributes:
        title: what MLflow calls the run.
        on_epoch: gets each epoch's numbers, with the accuracy on held-out clips; may raise to end the run.
        parent: the MLflow run of the sweep.
    """

    title: str
    on_epoch: Callable[[Mapping[str, float]], None]
    parent: str | None = None


def run_training(
    config: TrainConfig,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    plan: Plan | None = None,
    watch: Watch | None = None,
) -> RunResult:
    """Train and score as ``config`` says, and leave ``OUT/NAME/{adapter.safetensors, config.json, run.json, ...}``.

    A run that is finished is not repeated; one that was cut off goes on at its last whole epoch. Both are
    recognised by their name, which is a digest of all that the result depends on; ``fresh`` starts over.
    A run that a sweep watches and that has one worker trains in this very process, and draws no report; one that its
    ``watch`` ended is not gone on with.

    Raises:
        UserError: for everything that the user can mend, before any worker starts where it can be seen then.
        DivergedError: the loss became no number.
        RuntimeError: if workers failed more often than ``scale.max_failures`` allows.
    """
    plan = plan or plan_run(config)
    config = plan.config
    home = Home.at(config.out)
    if fresh:
        home.discard(plan.name)
    done = home.finished(plan.name)
    if done is not None:
        say(f"{plan.name}: unchanged, finished before; reusing {home.path(plan.name)}")
        return registered(RunResult(home.path(plan.name), done, reused=True), home, config, say)
    if home.unfinished(plan.name):
        say(f"{plan.name}: found an unfinished run with the same settings; going on with it (--fresh starts over)")
    fit = launch.here if watch and config.scale.workers == 1 else launch.on_ray
    if fit is launch.on_ray:
        for note in launch.checked(plan):  # before MLflow has a run that could not start
            say(f"{plan.name}: {note}")
    tracker = Tracker(config.tracking, title=watch.title if watch else "", parent=watch.parent if watch else None)
    tracker.start(config, plan.name, facts := facts_of(plan))
    started = time.time()
    progress = Progress(
        plan.name,
        config.optim.epochs,
        tracker,
        say,
        on_epoch=watch.on_epoch if watch else None,
        why_waiting=lambda: waiting(config),
    )
    try:
        with fit(plan, home, progress, watched=watch is not None) as folder:
            outcome = json.loads((folder / "outcome.json").read_text())
            for epoch in outcome["history"]:  # of an earlier driver, or while MLflow was away
                if epoch["epoch"] not in progress.logged:
                    tracker.epoch(int(epoch["epoch"]), epoch)
            record = record_of(
                plan, outcome, facts, run_id=tracker.run_id, seconds=time.time() - started, progress=progress
            )
            tracker.results(numbers_of(record["metrics"]) | numbers_of({"cost": record["cost"]}))
            with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
                assemble(Path(scratch), folder, record, report=watch is None)
                tracker.finish(Path(scratch))
                home.publish(Path(scratch), plan.name)
    except BaseException as error:
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)  # SystemExit: of a sweep, or of 'ray job stop'
        by_sweep = watch is not None and isinstance(error, SystemExit)
        with contextlib.suppress(Exception):  # the first error is the one to show
            if by_sweep:
                home.give_up(plan.name)
            why = f"stopped by the {'sweep' if by_sweep else 'user'}" if stopped else f"{type(error).__name__}: {error}"
            tracker.fail(why, stopped=stopped)
        raise
    return registered(RunResult(home.path(plan.name), record, reused=False), home, config, say)
