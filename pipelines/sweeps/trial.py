"""One trial of a sweep, in a process that Ray Tune keeps for the next one: plan, train, report.

A trial is a run like any other (``run_training``): it has a name, is not repeated if it is finished, and continues
where it was cut off.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import TrainConfig
from pipelines.sweeps.candidates import Candidate, overridden
from pipelines.sweeps.records import RECORD, STATUS, TrialRecord, TrialTracking, epoch_numbers, to_json
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.runs.record import RunResult

_NO_MEMORY = "the GPU's memory is too small for it; set optim.micro_batch, or scale.gpus_per_worker higher"


@dataclass(frozen=True)
class SharedSettings:
    """What all trials of a sweep share: the configuration that settings change, and the sweep's MLflow run."""

    base: TrainConfig
    sweep_run_id: str | None

    def candidate(self, config: Mapping[str, Any]) -> Candidate:
        """Return the candidate of Ray Tune's configuration of a trial; a searcher suggests no seed."""
        return Candidate(config["setting"], config.get("seed", self.base.seed))


def trainable(shared: SharedSettings) -> Callable[[dict[str, Any]], None]:
    """Return the function that Ray Tune calls for each trial."""

    def trial(config: dict[str, Any]) -> None:
        from ray import tune

        try:
            record = run_trial(shared, shared.candidate(config), tune.report)
        finally:
            gc.collect()  # the process stays: give the model's memory back
        last = {"epoch": max(1, record.epochs), STATUS: record.status, RECORD: json.dumps(to_json(record))}
        tune.report({**record.numbers(), **last})

    return trial


def run_trial(shared: SharedSettings, candidate: Candidate, report: Callable[[dict[str, Any]], None]) -> TrialRecord:
    """Train a candidate and return its record.

    Args:
        shared: what all trials share.
        candidate: the setting and seed to train.
        report: gets each epoch's numbers by their dotted names; may raise to end the trial.

    Raises:
        UserError: a problem that is not the setting's: a full disk, an MLflow server that does not answer.
    """
    from torch import OutOfMemoryError

    from pipelines.planning.plan import plan_run
    from pipelines.runs.run import Watch, run_training

    started = time.monotonic()
    record = TrialRecord.of(candidate)
    try:
        config = overridden(shared.base, candidate.setting, seed=candidate.seed)
        plan = plan_run(config)
    except UserError as error:
        return replace(record, status="invalid", message=str(error))
    record = replace(record, run=plan.name, cost={"trainable": plan.facts.trainable})

    def on_epoch(epoch: Mapping[str, float]) -> None:
        report({**epoch_numbers(epoch), **record.numbers()})

    watch = Watch(f"{candidate.label}, seed {candidate.seed}", on_epoch, shared.sweep_run_id)
    try:
        result = run_training(plan, say=_say_nothing, watch=watch)
    except DivergedError as error:
        return replace(record, status="diverged", message=str(error), seconds=time.monotonic() - started)
    except OutOfMemoryError:
        return replace(record, status="invalid", message=_NO_MEMORY, seconds=time.monotonic() - started)
    return replace(_finished(record, result), seconds=time.monotonic() - started)


def _finished(trial: TrialRecord, result: RunResult) -> TrialRecord:
    record = result.record
    return replace(
        trial,
        status="finished",
        epochs=len(record.history),
        history=tuple(epoch.to_json() for epoch in record.history),
        metrics=record.metrics.to_json(),
        cost=record.cost.to_json(),
        tracking=TrialTracking(record.tracking.run_id),
    )


def _say_nothing(_: str) -> None:
    """Drop a line: those of trials side by side would mix; the sweep reports for them."""
