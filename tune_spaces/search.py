"""How a space is searched: objectives, the kind of search, the trials of earlier sessions. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tune_spaces.domains import Setting
from vlmodels.errors import UserError, refuse

Kind = Literal["grid", "random", "tpe"]
Scheduler = Literal["none", "asha", "median"]
Mode = Literal["max", "min"]

EPOCH, STATUS = "epoch", "status"
"""Keys of a trial's reports: every report has EPOCH; the last one, and no other, has STATUS."""

FINISHED, PRUNED = "finished", "pruned"
"""The STATUS of a trial that has scores, and of one that a scheduler stopped."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A number to maximize or minimize, by its dotted name: select.top1, cost.trainable."""

    metric: str
    mode: Mode = "max"

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Parse "select.top1" or "cost.trainable:min"; without a mode, costs are minimized and all else is maximized.

        Raises:
            UserError: the mode is unknown or the name is missing.
        """
        metric, _, mode = text.strip().partition(":")
        if not mode:
            mode = "min" if metric.startswith("cost.") else "max"
        if not metric or mode not in get_args(Mode):
            raise UserError(f"objective '{text}' is not of the form METRIC, METRIC:max or METRIC:min")
        return cls(metric=metric, mode=mode)  # type: ignore[arg-type]  # it is in Mode: checked above


@dataclass(frozen=True, kw_only=True)
class Search:
    """A way through a space.

    Attributes:
        samples: settings to try in all (random and tpe only).
        objectives: numbers to optimize; schedulers look at the first.
        epochs: epochs of a trial that no scheduler stops.
        grace: epochs that a trial trains before a scheduler may stop it.
        reduction: ASHA keeps one of this many trials at each rung.

    Raises:
        UserError: the values do not fit together; one message names all problems.
    """

    kind: Kind = "grid"
    samples: int = 0
    scheduler: Scheduler = "none"
    objectives: tuple[Objective, ...]
    seed: int = 1
    epochs: int
    grace: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        refuse([*self._problems(), *self._scheduler_problems()])

    def _problems(self) -> Iterator[str]:
        names = [objective.metric for objective in self.objectives]
        if not names or len(set(names)) < len(names):
            yield f"a search needs one or more different objectives, not {', '.join(names) or 'none'}"
        if self.kind != "grid" and self.samples < 1:
            yield f"{self.kind} needs the number of settings to try: --samples 20"
        if self.kind == "grid" and self.samples:
            yield "a grid tries every setting: leave out --samples, or choose --search random or tpe"

    def _scheduler_problems(self) -> Iterator[str]:
        if self.scheduler == "none":
            return
        if len(self.objectives) > 1:
            yield f"{self.scheduler} stops trials by one objective, not by {len(self.objectives)}"
        if self.objectives and self.objectives[0].metric.startswith("cost."):
            yield (
                f"{self.scheduler} stops trials by a score that every epoch has; "
                f"{self.objectives[0].metric} is not such a score"
            )
        if not 1 <= self.grace < self.epochs:
            yield (
                f"{self.scheduler} could not stop any trial: --grace {self.grace} must be at least 1 and below the "
                f"{self.epochs} epochs of a trial"
            )
        if self.reduction < 2:
            yield f"asha keeps one of 2 or more at each rung, not of {self.reduction}"


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial that ended in an earlier session.

    Attributes:
        status: its last STATUS.
        metrics: its last numbers by their dotted names.
        by_epoch: the first objective after each epoch.
    """

    setting: Setting
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    by_epoch: Mapping[int, float] = field(default_factory=dict)


def objective_values(metrics: Mapping[str, Any], objectives: Sequence[Objective]) -> list[float] | None:
    """Return the value of each objective, or None if one of them is missing or not finite."""
    values = [metrics.get(objective.metric) for objective in objectives]
    finite = [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return finite if len(finite) == len(values) else None
