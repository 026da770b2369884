"""Accuracy of scored videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipelines.training.errors import DivergedError

if TYPE_CHECKING:
    from pipelines.protocols.split import EvalSet

Metrics = dict[str, float | Mapping[str, float] | Mapping[str, Mapping[str, float]]]
"""Numbers of one test set by their names in ``run.json``."""


@dataclass(frozen=True)
class ClassScores:
    """Class scores of the decodable videos of a test set, in list order.

    Attributes:
        targets: int64 (N,).
        scores: float32 (N,C), mean over views of the softmax.
        video: float16 (N,E), mean over views of the L2-normalised features; empty where they are not needed.
        scaled: float32 (N,C), ``scores`` at another temperature; empty where none was asked for.
    """

    targets: np.ndarray
    scores: np.ndarray
    video: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float16))
    scaled: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))


def set_metrics(test: EvalSet, result: ClassScores) -> Metrics:
    """Return the metrics of a test set, with the counts that each score needs next to it."""
    return {
        **accuracy(result, len(test.unscored)),
        "n_listed": test.n_listed,
        "n_scored": len(result.targets),
        "n_quarantined": len(test.unscored),
        "chance": 100 / len(test.classes),
    }


def accuracy(result: ClassScores, unscored: int = 0) -> dict[str, float]:
    """Return top-1 and top-5 in percent (top-C where C < 5); each of ``unscored`` videos counts as wrong.

    Equal scores are broken against the target, so a constant classifier earns nothing by ties.

    Raises:
        DivergedError: a score is not finite: every comparison with NaN would pass for a win.
    """
    if not np.isfinite(result.scores).all():
        raise DivergedError("scores that are not finite (NaN) have no accuracy")
    rank = _ranks(result.scores, result.targets)
    listed = len(result.targets) + unscored
    k = min(5, result.scores.shape[1])
    return {"top1": 100 * float((rank < 1).sum()) / listed, "top5": 100 * float((rank < k).sum()) / listed}


def own_is_best(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return whether each video's own class has the best score (N,C) alone (N,)."""
    alone: np.ndarray = _ranks(scores, targets) < 1
    return alone


def _ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many other classes have scores (N,C) at least as good as the target's (N,)."""
    own = scores[np.arange(len(targets)), targets][:, None]
    ranks: np.ndarray = (scores >= own).sum(1) - 1
    return ranks


def harmonic_mean(base: float, novel: float) -> float:
    """Return HM = 2BN / (B + N); 0 when both are."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0
