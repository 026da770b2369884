"""Schedulers for Ray Tune that stop poor trials early: ASHA and the median rule. Imports Ray Tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from tune_spaces.search import EPOCH, STATUS, PastTrial, Search, objective_values


def build_scheduler(search: Search, past_trials: Sequence[PastTrial]) -> EpochScheduler | None:
    """Build the scheduler of a search, with the scores of earlier sessions; None for ``scheduler="none"``."""
    if search.scheduler == "none":
        return None
    objective = search.objectives[0]
    common = {"time_attr": EPOCH, "metric": objective.metric, "mode": objective.mode, "grace_period": search.grace}
    if search.scheduler == "asha":
        rule = ASHAScheduler(**common, max_t=search.epochs, reduction_factor=search.reduction, stop_last_trials=False)
    else:  # hard_stop=True would raise an error when an earlier trial that the rule would have stopped is replayed
        rule = MedianStoppingRule(**common, hard_stop=False)
    return EpochScheduler(rule, search, past_trials)


class EpochScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray is untyped here
    """A stopping rule of Ray Tune's that sees only the scores of epochs, those of earlier sessions included.

    It does not stop a trial after its last epoch: that would save nothing and lose its tests. It ignores the report at
    a trial's end, which may lack a score and belongs to no epoch.
    """

    def __init__(self, rule: TrialScheduler, search: Search, past_trials: Sequence[PastTrial]) -> None:
        super().__init__()
        self._rule = rule
        self._objective = search.objectives[0]
        self._epochs = search.epochs
        for number, past_trial in enumerate(past_trials):
            trial = _ReplayedTrial(f"earlier-{number}")
            rule.on_trial_add(_NoOtherTrials(), trial)
            for epoch, value in sorted(past_trial.by_epoch.items()):
                self.on_trial_result(None, trial, {EPOCH: epoch, self._objective.metric: value})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Pass a new trial to the rule."""
        self._rule.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:  # noqa: ARG002
        """Ask the rule after an epoch whether the trial continues."""
        values = objective_values(result, [self._objective])
        if values is None or STATUS in result or result[EPOCH] >= self._epochs:
            return str(TrialScheduler.CONTINUE)
        seen = {EPOCH: result[EPOCH], self._objective.metric: values[0]}
        decision = str(self._rule.on_trial_result(_NoOtherTrials(), trial, seen))
        return str(TrialScheduler.STOP) if decision == TrialScheduler.PAUSE else decision


@dataclass(frozen=True)
class _ReplayedTrial:
    """A trial of an earlier session, with the only attribute that the rules read."""

    trial_id: str


class _NoOtherTrials:
    """A stand-in for Ray Tune's controller without other trials: if one waited, the median rule would pause a trial."""

    def get_live_trials(self) -> list[Any]:
        return []
