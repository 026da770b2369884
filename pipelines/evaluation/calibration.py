"""Calibration: a temperature for a model's logits, and how far its probabilities are from its share of right answers.

Both are those of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017).
"""

# N clip, V view, C class

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS = 15
FEWEST = 20
"""Clips that a temperature, or a threshold, is chosen on at least."""
_RANGE = (0.05, 20.0)  # temperatures; CLIP's logits are cosines times about 100, so 20 makes them nearly flat


class Fit(NamedTuple):
    """A temperature, and if it is 1 because none could be fitted, why."""

    temperature: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Bin:
    """Clips whose best class is about equally probable: their mean probability, and the share that is right."""

    clips: int
    confidence: float
    accuracy: float


def mean_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return float64 probabilities (N,C): the mean over views of the softmax of logits (N,V,C) / ``temperature``."""
    from scipy.special import softmax

    mean: np.ndarray = softmax(logits.astype(np.float64) / temperature, axis=-1).mean(axis=1)
    return mean


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> Fit:
    """Return the temperature with the least negative log-likelihood of the targets (Guo et al., section 4.2).

    The likelihood is that of the answer a predictor gives: the mean over views of the softmax at that temperature.

    Args:
        logits: of each view (N,V,C).
        targets: classes (N,).
    """
    from scipy.optimize import minimize_scalar

    if len(targets) < FEWEST:
        return Fit(1.0, f"there are {len(targets)} held-out clips, and it takes {FEWEST}")
    best = mean_probabilities(logits, 1.0).argmax(axis=1)
    if (best == targets).all():
        return Fit(1.0, f"all {len(targets)} held-out clips are right, so that a lower one is always likelier")
    low, high = np.log(_RANGE)
    found = minimize_scalar(
        lambda log: _loss(logits, targets, np.exp(log)), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    if min(found.x - low, high - found.x) < 1e-2:
        return Fit(1.0, f"the likeliest is not within {_RANGE[0]:g} and {_RANGE[1]:g}")
    return Fit(float(np.exp(found.x)))


def _loss(logits: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """Return the mean negative log of the targets' probabilities, without taking the log of an underflow."""
    from scipy.special import logsumexp

    scaled = logits.astype(np.float64) / temperature
    own = np.take_along_axis(scaled, targets[:, None, None], axis=-1)[..., 0]
    of_view = own - logsumexp(scaled, axis=-1)  # (N,V)
    return float(np.log(logits.shape[1]) - logsumexp(of_view, axis=1).mean())


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Return the bins ((m-1)/15, m/15] of a reliability diagram, empty ones included.

    Args:
        confidence: probability of each clip's best class (N,).
        right: whether that is its own (N,).
    """
    places = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    shares = np.maximum(counts, 1)
    means = np.bincount(places, confidence, BINS) / shares
    rights = np.bincount(places, right, BINS) / shares
    return [Bin(int(n), float(mean), float(share)) for n, mean, share in zip(counts, means, rights, strict=True)]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error (Guo et al., eq. 3): the mean gap of the bins, weighted by their clips."""
    clips = sum(each.clips for each in bins)
    return sum(each.clips * abs(each.accuracy - each.confidence) for each in bins) / clips
