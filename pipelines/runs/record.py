"""The record of a run, and the files of its folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.config.plain import digest_of, to_plain
from pipelines.config.record import shown
from pipelines.evaluation.metrics import harmonic_mean
from pipelines.planning.identity import code_version
from pipelines.planning.plan import Plan
from pipelines.planning.start import about_start
from pipelines.records.run_file import SCHEMA, Facts, Metrics, RunRecord, make, with_files, write
from pipelines.runs.checkpoint import OUTCOME, Outcome
from pipelines.runs.progress import Progress


def assemble(folder: Path, checkpoint: Path, record: RunRecord) -> RunRecord:
    """Write adapter, predictions, configuration, classes and record to ``folder``; return the record as it is there."""
    for path in checkpoint.iterdir():
        if path.name != OUTCOME:
            shutil.copy2(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(record.config.to_json(), indent=2) + "\n")
    (folder / "classes.json").write_text(json.dumps(dict(record.classes), indent=2, ensure_ascii=False) + "\n")
    record = with_files(record, folder)
    write(folder, record)
    return record


def git_state() -> str:
    """Return the commit of the checkout that the code runs from (``+`` if changed), or ``""`` outside of one."""
    root = Path(__file__).parent
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)  # noqa: S603, S607
    return done.stdout.strip()


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder (path or URI), its record, and whether it had finished before."""

    run_dir: str
    record: RunRecord
    reused: bool

    @property
    def metrics(self) -> Metrics:
        """Metrics of each test set, and ``hm`` for base-to-novel."""
        return self.record.metrics


def facts_of(plan: Plan) -> Facts:
    """Return the facts of a run: the plan's, and what the machine and the code are."""
    from importlib.metadata import version

    import torch

    return Facts.model_validate(
        {
            **to_plain(plan.facts),
            "split_digest": plan.split.digest,
            "split_source": plan.split.source,
            "data_digest": plan.data_digest,
            "code_version": code_version(),
            "git": git_state(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": version("open_clip_torch"),
            "ray": version("ray"),
            "descriptions_digest": digest_of(plan.descriptions) if plan.descriptions else "",
            "notes": list(plan.notes),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
    )


def record_of(
    plan: Plan, outcome: Outcome, facts: Facts, *, run_id: str | None, seconds: float, progress: Progress
) -> RunRecord:
    """Return the record of a run that has finished.

    Args:
        plan: the run.
        outcome: metrics, cost, history and kept epoch, as the workers left them.
        facts: :func:`facts_of` the plan.
        run_id: the run in MLflow; None without one.
        seconds: of this process; epochs that an earlier one trained are added.
        progress: what the workers reported.

    Raises:
        UserError: they do not make a record.
    """
    values = {
        **_planned(plan),
        "metrics": _metrics_of(outcome),
        **({} if outcome.decision is None else {"decision": outcome.decision}),
        "cost": {**outcome.cost, "trainable": plan.facts.trainable, "gmacs_video": plan.facts.gmacs_video},
        "history": outcome.history,
        "selection": plan.config.selection,
        "epoch_kept": outcome.epoch_kept,
        "facts": facts,
        **_test_sets(plan),
        "seconds": _seconds_of(outcome, seconds, progress),
        "restarts": progress.restarts,
        "workers": {str(rank): host for rank, host in sorted(progress.hosts.items())},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tracking": {"run_id": run_id},
    }
    return make(values, plan.name)


def _planned(plan: Plan) -> dict[str, Any]:
    """Return what is recorded of a plan."""
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
        "start": about_start(plan.start),
        "config": shown(plan.config),
    }


def _metrics_of(outcome: Outcome) -> dict[str, Any]:
    """Return the metrics of all test sets, with base-to-novel's harmonic mean."""
    metrics: dict[str, Any] = dict(outcome.metrics)
    if {"base", "novel"} <= set(metrics):
        metrics["hm"] = harmonic_mean(metrics["base"]["top1"], metrics["novel"]["top1"])
    return metrics


def _test_sets(plan: Plan) -> dict[str, Any]:
    """Return classes and undecodable videos of each test set that was scored."""
    tests = plan.split.tests if plan.config.test else ()
    return {
        "classes": {t.name: list(t.classes) for t in tests},
        "unscored": {t.name: [list(pair) for pair in t.unscored] for t in tests},
    }


def _seconds_of(outcome: Outcome, seconds: float, progress: Progress) -> dict[str, float]:
    """Return how long the run took, epochs that an earlier process trained included, and its parts."""
    history = outcome.history
    return {
        "total": seconds + sum(e["seconds"] for e in history if e["epoch"] not in progress.seen),
        "train": sum(epoch["seconds"] for epoch in history),
        "data_wait": sum(epoch["data_wait"] for epoch in history),
        "network_wait": sum(epoch["network_wait"] for epoch in history),
    }
