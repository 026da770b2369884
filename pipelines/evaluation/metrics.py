"""Accuracy of scored videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.training.errors import DivergedError

if TYPE_CHECKING:
    from pipelines.protocols.split import EvalSet


@dataclass(frozen=True)
class Scores:
    """Class scores of the decodable videos of a test set, in list order."""

    targets: np.ndarray  # int64 (N,)
    scores: np.ndarray  # float32 (N, C), mean over views of the softmax
    video: np.ndarray | None = None  # float16 (N, E), mean over views of the L2-normalised features


def accuracy(result: Scores, unscored: int = 0) -> dict[str, float]:
    """Top-1 and top-5 in percent (top-C where C < 5); each of ``unscored`` videos counts as wrong.

    Equal scores are broken against the target, so a constant classifier earns nothing by ties.

    Raises:
        DivergedError: if a score is not finite: every comparison with NaN would pass for a win.
    """
    if not np.isfinite(result.scores).all():
        raise DivergedError("scores that are no numbers (NaN) have no accuracy")
    own = result.scores[np.arange(len(result.targets)), result.targets][:, None]
    rank = (result.scores >= own).sum(1) - 1
    listed = len(result.targets) + unscored
    k = min(5, result.scores.shape[1])
    return {"top1": 100 * float((rank < 1).sum()) / listed, "top5": 100 * float((rank < k).sum()) / listed}


def harmonic_mean(base: float, novel: float) -> float:
    """HM = 2BN / (B + N); 0 when both are."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def set_metrics(test: EvalSet, result: Scores) -> dict[str, Any]:
    """Metrics of one test set with the counts that belong beside every score."""
    return {
        **accuracy(result, len(test.unscored)),
        "n_listed": test.n_listed,
        "n_scored": len(result.targets),
        "n_quarantined": len(test.unscored),
        "chance": 100 / len(test.classes),
    }
