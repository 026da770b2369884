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

SELECT = "select"
"""The held-out clips among the sets of a decision."""


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
    """A threshold, or why there is none."""

    threshold: float | None
    problem: str = ""


def choose_threshold(held_out: Answers, miss_rate: float) -> Choice:
    """Return the threshold that refuses the share ``miss_rate`` of those held-out clips that are right.

    Clips of unknown classes have no say: their false alarms are measured, and so not optimistic.
    """
    right = np.sort(held_out.confidence[held_out.right])
    needed = max(FEWEST, math.ceil(1 / miss_rate - 1e-9))
    if len(right) < needed:
        right_ones = f"{len(right)} of {int(held_out.known.sum())} held-out clips are right"
        remedy = "hold out more (protocol.holdout)"
        return Choice(None, f"{right_ones}, and refusing {100 * miss_rate:g} % of them takes {needed}; {remedy}")
    refused = math.floor(miss_rate * len(right) + 1e-9)
    return Choice(float(right[refused - 1 : refused + 1].astype(np.float64).mean()))


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
        miss_rate: the share of misses that was aimed at.
        notes: why there is no temperature or threshold.
        sets: ``measure`` of the held-out clips ("select") and of test sets by name.
    """

    temperature: float
    threshold: float | None
    miss_rate: float
    notes: tuple[str, ...]
    sets: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return ``decision`` of ``run.json``."""
        return asdict(self)

    def with_set(self, name: str, answers: Answers) -> Decided:
        """Return the decision with what it does to a test set."""
        return replace(self, sets={**self.sets, name: measure(answers, self.threshold)})


def decide(logits: np.ndarray, targets: np.ndarray, miss_rate: float) -> Decided:
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
    threshold, no_threshold = choose_threshold(held_out, miss_rate)
    notes = {"the temperature stays 1": no_temperature, "there is no threshold": no_threshold}
    return Decided(
        temperature,
        threshold,
        miss_rate,
        tuple(f"{what}: {why}" for what, why in notes.items() if why),
        {SELECT: measure(held_out, threshold)},
    )
