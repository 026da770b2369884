"""``decision`` of ``run.json``: a temperature, a threshold of "none of these", and how often they are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import StrictInt, model_validator

from pipelines.records.part import JsonPart, Number

HELD_OUT = "select"
"""The held-out clips among the sets of a decision."""


class Rate(JsonPart):
    """A share of clips: ``clips`` of ``of``, with its 95 % confidence interval (Wilson's)."""

    clips: StrictInt
    of: StrictInt
    rate: Number
    low: Number
    high: Number


class Bin(JsonPart):
    """Clips of a bin of a reliability diagram: their mean probability, and the share that is right."""

    clips: StrictInt
    confidence: Number
    accuracy: Number


class SetDecision(JsonPart):
    """How a set of clips fares with a decision.

    ``known`` counts the clips of trained classes, ``right`` those whose best class is right, ``unknown`` all others.
    ``misses`` are right clips that are refused, ``caught`` wrong ones that are refused, ``false_alarms`` unknown clips
    that are not. ``ece`` and ``bins`` are those at temperature 1, ``ece_scaled`` and ``bins_scaled`` at the run's.
    """

    known: StrictInt
    right: StrictInt
    unknown: StrictInt
    misses: Rate | None = None
    caught: Rate | None = None
    false_alarms: Rate | None = None
    ece: Number | None = None
    ece_scaled: Number | None = None
    bins: tuple[Bin, ...] = ()
    bins_scaled: tuple[Bin, ...] = ()


class RunDecision(JsonPart):
    """What a run chose on held-out clips.

    The threshold refuses the share ``miss_rate`` of the right ones. ``notes`` say why there is no temperature but 1, or
    no threshold.
    """

    temperature: Number = 1.0
    threshold: Number | None = None
    miss_rate: Number = 0.05
    notes: tuple[str, ...] = ()
    sets: Mapping[str, SetDecision] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.temperature > 0:
            raise ValueError(f"decision.temperature is {self.temperature}, not above 0")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"decision.threshold is {self.threshold}, not a probability")
        return self

    def numbers(self) -> dict[str, float]:
        """Return what is tracked, by names such as ``decision/select/misses``; rates and errors are shares."""
        found = {"decision/temperature": self.temperature}
        if self.threshold is not None:
            found["decision/threshold"] = self.threshold
        for name, one in self.sets.items():
            found |= {f"decision/{name}/{key}": value for key, value in _numbers(one)}
        return {key.replace("@", ""): float(value) for key, value in found.items()}


def _numbers(one: SetDecision) -> Iterator[tuple[str, float]]:
    rates = {"misses": one.misses, "caught": one.caught, "false_alarms": one.false_alarms}
    yield from ((name, rate.rate) for name, rate in rates.items() if rate is not None)
    errors = {"ece": one.ece, "ece_scaled": one.ece_scaled}
    yield from ((name, error) for name, error in errors.items() if error is not None)
