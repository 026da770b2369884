"""The threshold of "none of these": how it is chosen on held-out clips, and how often it is wrong.

A clip is refused if even its best trained class is less probable than the threshold. A *miss* is a clip of a trained
class whose best class is right and that is refused all the same. A *false alarm* is a clip of no trained class that is
not refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from pipelines.evaluation.calibration import FEWEST, calibration_error, fit_temperature, mean_probabilities, reliability
from pipelines.evaluation.metrics import ClassScores, own_is_best

MISS_RATE = 0.05
"""Share of the right held-out clips that may be refused, unless ``protocol.miss_rate`` says another."""
SELECT = "select"
"""The held-out clips among the sets of a decision."""
BY_MISSES, BY_BOTH = "miss_rate", "least_sum"
"""How a threshold was chosen: by a share of misses, or by the least sum of both rates."""


@dataclass(frozen=True)
class Answers:
    """What a model says about N clips among its trained classes.

    Attributes:
        confidence: probability of the best class (N,), at the temperature that was chosen.
        right: whether that is the clip's own (N,).
        known: whether the clip's class was trained (N,).
        plain: ``confidence`` at temperature 1 (N,).
        plain_right: ``right`` at temperature 1 (N,).
    """

    confidence: np.ndarray
    right: np.ndarray
    known: np.ndarray
    plain: np.ndarray
    plain_right: np.ndarray

    @classmethod
    def of(cls, scores: ClassScores, scaled: np.ndarray) -> Self:
        """Return the answers of scored clips; those whose target is negative are of no trained class.

        Args:
            scores: at temperature 1, among the trained classes.
            scaled: probabilities (N,C) at the temperature that was chosen.
        """
        known = scores.targets >= 0
        return cls(
            scaled.max(axis=1),
            own_is_best(scaled, scores.targets) & known,
            known,
            scores.scores.max(axis=1),
            own_is_best(scores.scores, scores.targets) & known,
        )

    def and_of(self, other: Answers) -> Answers:
        """Return these clips and the other's."""
        mine, others = vars(self), vars(other)
        return Answers(**{name: np.concatenate([mine[name], others[name]]) for name in mine})


class Choice(NamedTuple):
    """A threshold and how it was chosen, or why there is none."""

    threshold: float | None
    rule: str = ""
    problem: str = ""


def choose_threshold(held_out: Answers, miss_rate: float | None) -> Choice:
    """Return the threshold for held-out clips.

    With ``miss_rate``, or without at least ``FEWEST`` clips of classes that were not trained, it refuses that share
    (by default ``MISS_RATE``) of the clips that are right. Else it has the least sum of both rates.
    """
    right = np.sort(held_out.confidence[held_out.right])
    unknown = np.sort(held_out.confidence[~held_out.known])
    if miss_rate is None and len(unknown) >= FEWEST <= len(right):
        return _least_sum(right, unknown)
    share = MISS_RATE if miss_rate is None else miss_rate
    needed = max(FEWEST, math.ceil(1 / share - 1e-9))
    if len(right) < needed:
        right_ones = f"{len(right)} of {int(held_out.known.sum())} held-out clips are right"
        remedy = "hold out more (protocol.holdout)"
        return Choice(None, problem=f"{right_ones}, and refusing {100 * share:g} % of them takes {needed}; {remedy}")
    refused = math.floor(share * len(right) + 1e-9)
    return Choice(float(right[refused - 1 : refused + 1].astype(np.float64).mean()), BY_MISSES)


def _least_sum(right: np.ndarray, unknown: np.ndarray) -> Choice:
    """Return the threshold, halfway between two clips, with the least sum of both rates; of equals the lowest."""
    steps = np.unique(np.concatenate([right, unknown]).astype(np.float64))
    between = (steps[1:] + steps[:-1]) / 2
    misses = np.searchsorted(right, between) / len(right)
    alarms = 1 - np.searchsorted(unknown, between) / len(unknown)
    sums = misses + alarms
    if not len(sums) or sums.min() >= 1:
        return Choice(
            None, problem="clips of the held-out classes are as probable as right ones: no threshold tells them apart"
        )
    return Choice(float(between[sums.argmin()]), BY_BOTH)


# ----------------------------------------------------------------------------------------------------- what it does


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of clips, with its 95 % confidence interval (Wilson's)."""

    clips: int
    of: int
    rate: float
    low: float
    high: float

    @classmethod
    def counted(cls, found: np.ndarray) -> Self | None:
        """Return the share of true values; None if there are none at all."""
        from scipy.stats import binomtest

        count, of = int(found.sum()), len(found)
        if not of:
            return None
        interval = binomtest(count, of).proportion_ci(method="wilson")
        return cls(count, of, count / of, float(interval.low), float(interval.high))


def measure(answers: Answers, threshold: float | None) -> dict[str, Any]:
    """Return how a set of clips fares, as in ``decision.sets`` of ``run.json``.

    Rates are missing where they have no clips or there is no threshold, and the calibration where no clip is known.
    """
    known = answers.known
    counts = {"known": known, "right": answers.right, "unknown": ~known}
    found: dict[str, Any] = {name: int(clips.sum()) for name, clips in counts.items()}
    if threshold is not None:
        refused = answers.confidence < threshold
        rates = {
            "misses": Rate.counted(refused[answers.right]),
            "caught": Rate.counted(refused[known & ~answers.right]),
            "false_alarms": Rate.counted(~refused[~known]),
        }
        found |= {name: asdict(rate) for name, rate in rates.items() if rate is not None}
    if known.any():
        before = reliability(answers.plain[known], answers.plain_right[known])
        after = reliability(answers.confidence[known], answers.right[known])
        found |= {
            "ece": calibration_error(before),
            "ece_scaled": calibration_error(after),
            "bins": [asdict(each) for each in before],
            "bins_scaled": [asdict(each) for each in after],
        }
    return found


# --------------------------------------------------------------------------------------------------- a run's decision


@dataclass(frozen=True)
class Decided:
    """What a run chose on its held-out clips, and how each set of clips fares with it.

    Attributes:
        temperature: the logits are divided by it.
        threshold: of "none of these"; None if none could be chosen.
        rule: how it was chosen, ``BY_MISSES`` or ``BY_BOTH``; "" for no threshold.
        miss_rate: the share of misses that was aimed at; None for ``BY_BOTH``.
        notes: why there is no temperature or threshold.
        sets: ``measure`` of the held-out clips ("select") and of test sets by name.
    """

    temperature: float
    threshold: float | None
    rule: str
    miss_rate: float | None
    notes: tuple[str, ...]
    sets: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return ``decision`` of ``run.json``."""
        return asdict(self)

    def with_set(self, name: str, answers: Answers) -> Decided:
        """Return the decision with what it does to a test set."""
        return replace(self, sets={**self.sets, name: measure(answers, self.threshold)})


def decide(logits: np.ndarray, targets: np.ndarray, miss_rate: float | None) -> Decided:
    """Choose a temperature and a threshold on held-out clips.

    Args:
        logits: of each view among the trained classes (N,V,C).
        targets: trained classes (N,); negative for clips of classes that were held out whole.
        miss_rate: ``protocol.miss_rate``.
    """
    known = targets >= 0
    temperature, no_temperature = fit_temperature(logits[known], targets[known])
    plain, scaled = (mean_probabilities(logits, each) for each in (1.0, temperature))
    held_out = Answers.of(ClassScores(targets, plain), scaled)
    threshold, rule, no_threshold = choose_threshold(held_out, miss_rate)
    notes = {"the temperature stays 1": no_temperature, "there is no threshold": no_threshold}
    return Decided(
        temperature,
        threshold,
        rule,
        (MISS_RATE if miss_rate is None else miss_rate) if rule == BY_MISSES else None,
        tuple(f"{what}: {why}" for what, why in notes.items() if why),
        {SELECT: measure(held_out, threshold)},
    )
