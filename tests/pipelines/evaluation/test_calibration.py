"""Temperature and calibration error: known scales come back, bins are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from pipelines.evaluation.calibration import BINS, calibration_error, fit_temperature, mean_probabilities, reliability


def drawn(clips=4000, views=1, classes=5, seed=0):
    """Logits whose softmax is the very distribution that the targets are drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(clips, views, classes)).astype(np.float32)
    chances = softmax(logits.astype(np.float64), axis=-1).mean(axis=1)
    return logits, np.array([rng.choice(classes, p=row) for row in chances])


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_a_known_scale_is_found_again(scale, views):
    logits, targets = drawn(views=views)
    temperature, problem = fit_temperature(scale * logits, targets)
    assert temperature == pytest.approx(scale, rel=0.1)
    assert not problem


def test_a_temperature_makes_probabilities_mean_what_they_say():
    logits, targets = drawn()
    logits = 4 * logits
    errors = []
    for temperature in (1.0, fit_temperature(logits, targets).temperature):
        chances = mean_probabilities(logits, temperature)
        errors.append(calibration_error(reliability(chances.max(axis=1), chances.argmax(axis=1) == targets)))
    assert errors[1] < 0.03 < errors[0]


def test_of_several_views_probabilities_are_averaged_not_logits():
    logits = np.array([[[0.0, np.log(3)], [np.log(9), 0.0]]])
    assert mean_probabilities(logits, 1.0) == pytest.approx(np.array([[0.575, 0.425]]))
    assert mean_probabilities(logits, 2.0)[0, 1] == pytest.approx((np.sqrt(3) / (1 + np.sqrt(3)) + 0.25) / 2)


@pytest.mark.parametrize(
    ("clips", "wrong", "words"),
    [(19, 5, "19 held-out clips"), (40, 0, "all 40 held-out clips are right"), (40, 40, "not within")],
)
def test_where_no_temperature_can_be_fitted_it_stays_1_and_says_why(clips, wrong, words):
    targets = np.arange(clips) % 3
    logits = 5.0 * np.eye(3)[np.where(np.arange(clips) < wrong, (targets + 1) % 3, targets)][:, None]
    temperature, problem = fit_temperature(logits, targets)
    assert temperature == 1
    assert words in problem


def test_logits_far_apart_do_not_overflow():
    targets = np.arange(40) % 2
    logits = 1e4 * np.eye(2)[targets][:, None]
    logits[:10] *= -1
    assert np.isfinite(fit_temperature(logits, targets).temperature)


def test_bins_and_calibration_error_by_hand():
    confidence = np.array([0.2, 0.21, 0.25, 0.99, 1.0, 0.95])
    right = np.array([True, False, True, True, True, False])
    bins = reliability(confidence, right)
    assert len(bins) == BINS
    assert [each.clips for each in bins] == [0, 0, 1, 2, *[0] * 10, 3]  # (2/15, 3/15], (3/15, 4/15], (14/15, 1]
    assert (bins[3].confidence, bins[3].accuracy) == (pytest.approx(0.23), 0.5)
    by_hand = (1 * abs(1 - 0.2) + 2 * abs(0.5 - 0.23) + 3 * abs(2 / 3 - 2.94 / 3)) / 6
    assert calibration_error(bins) == pytest.approx(by_hand)
