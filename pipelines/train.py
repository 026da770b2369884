"""``run_training``: one run from configuration to a finished folder; scripts and the trials of sweeps call it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines import launch, rundir
from pipelines.config import TrainConfig, digest_of
from pipelines.evaluate import harmonic_mean
from pipelines.plan import Plan, code_version, plan_run
from pipelines.progress import Progress
from pipelines.room import waiting
from pipelines.tracking import Tracker, flatten, register, shown

SCHEMA = 2
"""Version of ``run.json``; raised when a field changes its meaning."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder (path or URI), its ``run.json``, and whether it was there already."""

    run_dir: str
    record: Mapping[str, Any]
    reused: bool

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of each test set, and ``hm`` for base-to-novel."""
        return self.record["metrics"]


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
    home = rundir.Home.at(config.out)
    if fresh:
        home.discard(plan.name)
    done = home.finished(plan.name)
    if done is not None:
        say(f"{plan.name}: unchanged, finished before; reusing {home.path(plan.name)}")
        return _registered(RunResult(home.path(plan.name), done, reused=True), home, config, say)
    if home.unfinished(plan.name):
        say(f"{plan.name}: found an unfinished run with the same settings; going on with it (--fresh starts over)")
    fit = launch.here if watch and config.scale.workers == 1 else launch.on_ray
    if fit is launch.on_ray:
        for note in launch.checked(plan):  # before MLflow has a run that could not start
            say(f"{plan.name}: {note}")
    tracker = Tracker(config.tracking, title=watch.title if watch else "", parent=watch.parent if watch else None)
    tracker.start(config, plan.name, facts := _facts(plan))
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
            record = _record(
                plan, outcome, facts, run_id=tracker.run_id, seconds=time.time() - started, progress=progress
            )
            tracker.results(numbers_of(record["metrics"]) | numbers_of({"cost": record["cost"]}))
            with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
                rundir.assemble(Path(scratch), folder, record, report=watch is None)
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
    return _registered(RunResult(home.path(plan.name), record, reused=False), home, config, say)


def _registered(result: RunResult, home: rundir.Home, config: TrainConfig, say: Callable[[str], None]) -> RunResult:
    """Register the finished run if the configuration asks for it."""
    if config.tracking.register:
        register_run(result, config, home=home, say=say)
    return result


def register_run(
    result: RunResult, config: TrainConfig, *, home: rundir.Home | None = None, say: Callable[[str], None] = print
) -> str:
    """Register a finished run under the name that ``config`` gives; return the model's URI."""
    with (home or rundir.Home.at(config.out)).local_copy(result.record["name"]) as folder:
        model = register(folder, config.tracking, result.record["tracking"].get("run_id"))
    say(f"{result.record['name']}: in the registry as {model}")
    return model


def _facts(plan: Plan) -> dict[str, Any]:
    """What the machine and the code were."""
    import open_clip
    import ray
    import torch

    return {
        **plan.facts,
        "split_digest": plan.split.digest,
        "split_source": plan.split.source,
        "data_digest": plan.data_digest,
        "code_version": code_version(),
        "git": rundir.git_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "ray": ray.__version__,
        "descriptions_digest": digest_of(plan.descriptions) if plan.descriptions else "",
        "notes": list(plan.notes),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _record(
    plan: Plan,
    outcome: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    run_id: str | None,
    seconds: float,
    progress: Progress,
) -> dict[str, Any]:
    metrics = dict(outcome["metrics"])
    tests = plan.split.tests if plan.config.test else ()
    if {"base", "novel"} <= set(metrics):
        metrics["hm"] = harmonic_mean(metrics["base"]["top1"], metrics["novel"]["top1"])
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "group": plan.group,
        "protocol": plan.split.protocol,
        "dataset": plan.split.dataset,
        "method": plan.config.method,
        "preset": plan.config.preset,
        "seed": plan.config.seed,
        "scoring": asdict(plan.split.scoring) if plan.split.scoring else {},
        "lists": dict(plan.split.lists),
        "start": rundir.about_start(plan.start),
        "config": shown(plan.config),
        "metrics": metrics,
        "cost": {**outcome["cost"], "trainable": plan.facts["trainable"], "gmacs_video": plan.facts["gmacs_video"]},
        "history": outcome["history"],
        "selection": plan.config.selection,
        "epoch_kept": outcome["epoch_kept"],
        "facts": dict(facts),
        "classes": {t.name: list(t.classes) for t in tests},
        "unscored": {t.name: [list(pair) for pair in t.unscored] for t in tests},
        "seconds": {
            "total": seconds + sum(e["seconds"] for e in outcome["history"] if e["epoch"] not in progress.seen),
            "train": sum(epoch["seconds"] for epoch in outcome["history"]),
            "data_wait": sum(epoch["data_wait"] for epoch in outcome["history"]),
            "network_wait": sum(epoch["network_wait"] for epoch in outcome["history"]),
        },
        "restarts": progress.restarts,
        "workers": {str(rank): host for rank, host in sorted(progress.hosts.items())},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tracking": {"run_id": run_id},
    }


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every number by its path; MLflow's names have no ``@``."""
    return {
        key.replace(".", "/").replace("@", ""): float(value)
        for key, value in flatten(metrics).items()
        if isinstance(value, (int, float))
    }
