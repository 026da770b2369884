"""One trial of a sweep, in a process that Ray Tune keeps for the next: plan, train, tell.

A trial is a run like any other (``run_training``): it has a name, is not repeated if it is finished, and goes on where
it was cut off.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import TrainConfig
from pipelines.sweeps.candidates import Candidate, overridden
from pipelines.sweeps.folder import STATUS
from pipelines.sweeps.records import RECORD, blank, epoch_numbers, numbers
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.runs.record import RunResult


@dataclass(frozen=True)
class Task:
    """What all trials of a sweep share."""

    base: TrainConfig
    parent: str | None  # the sweep's MLflow run

    def candidate(self, config: Mapping[str, Any]) -> Candidate:
        """What Ray Tune's configuration of a trial stands for; a searcher suggests no seed."""
        return Candidate(config["setting"], config.get("seed", self.base.seed))


def trainable(task: Task) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune calls for each trial."""

    def trial(config: dict[str, Any]) -> None:
        from ray import tune

        try:
            record = run_trial(task, task.candidate(config), tune.report)
        finally:
            gc.collect()  # the process stays: give the model's memory back
        tune.report(
            {**numbers(record), "epoch": max(1, record["epochs"]), STATUS: record[STATUS], RECORD: json.dumps(record)}
        )

    return trial


def run_trial(task: Task, candidate: Candidate, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train a candidate and return its record (the content of trials/ID.json).

    ``report`` gets each epoch's numbers by their dotted names; it may raise to end the trial.

    Raises:
        UserError: what is no matter of the setting: a full disk, an MLflow server that is away.
    """
    from pipelines.planning.plan import plan_run
    from pipelines.runs.run import Watch, run_training

    started = time.monotonic()
    record = blank(candidate)
    try:
        config = overridden(task.base, candidate.setting, seed=candidate.seed)
        plan = plan_run(config)
    except UserError as error:
        return record | {"status": "invalid", "message": str(error)}
    record |= {"run": plan.name, "cost": {"trainable": plan.facts.trainable}}

    def on_epoch(epoch: Mapping[str, float]) -> None:
        report({**epoch_numbers(epoch), **numbers(record)})

    from torch import OutOfMemoryError

    watch = Watch(f"{candidate.label}, seed {candidate.seed}", on_epoch, task.parent)
    try:
        result = run_training(plan, say=_say_nothing, watch=watch)
    except DivergedError as error:
        return record | {"status": "diverged", "message": str(error), "seconds": time.monotonic() - started}
    except OutOfMemoryError:
        said = "the GPU's memory is too small for it; set optim.micro_batch, or scale.gpus_per_worker higher"
        return record | {"status": "invalid", "message": said, "seconds": time.monotonic() - started}
    return record | _outcome(result) | {"status": "finished", "seconds": time.monotonic() - started}


def _outcome(result: RunResult) -> dict[str, Any]:
    record = result.record
    return {
        "epochs": len(record.history),
        "history": [epoch.to_json() for epoch in record.history],
        "metrics": record.metrics.to_json(),
        "cost": record.cost.to_json(),
        "tracking": {"run_id": record.tracking.run_id},
    }


def _say_nothing(_: str) -> None:
    """Trials side by side would talk across each other; the sweep speaks for them."""
