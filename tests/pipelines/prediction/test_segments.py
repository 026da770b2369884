from __future__ import annotations

import numpy as np
import pytest

from pipelines.prediction.segments import NONE, Segment, Segmenter
from vlmodels.predictor import Answer, Prediction
from vlmodels.span import Span

LABELS = ("a", "b", NONE)


def decide(row):
    best = int(np.argmax(row))
    return Answer((Prediction(LABELS[best], float(row[best])),), float(row[best]) < 0.5)


def segments(*windows):
    """Segments of (start, end, probability of a, of b, of a class that is called like none)."""
    segmenter = Segmenter(decide)
    for start, end, *row in windows:
        segmenter.add(Span(start, end), np.array(row, np.float32))
    return [(one.start, one.end, one.label, round(one.probability, 4), one.none) for one in segmenter.finish()]


A, B = (0.9, 0.1, 0), (0.2, 0.8, 0)


def test_windows_of_one_label_are_one_segment():
    assert segments((0, 2, *A), (1, 3, *A), (2, 4, *A)) == [(0, 4, "a", 0.9, False)]


def test_an_instant_has_the_label_of_the_mean_of_its_windows():
    mixed = (0.4, 0.6, 0)
    found = segments((0, 4, *A), (2, 6, *A), (4, 8, *mixed), (6, 10, *B), (8, 12, *B))
    assert [(start, end, label) for start, end, label, *_ in found] == [(0, 6, "a"), (6, 12, "b")]
    assert found[0][3] == pytest.approx((4 * 0.9 + 2 * 0.65) / 6, abs=1e-4)  # the mean over its time


def test_windows_that_do_not_overlap():
    assert segments((0, 2, *A), (2, 4, *B)) == [(0, 2, "a", 0.9, False), (2, 4, "b", 0.8, False)]


def test_a_last_window_that_ends_with_the_video():
    assert segments((0, 2, *A), (2, 4, *A), (2.5, 4.5, *A)) == [(0, 4.5, "a", 0.9, False)]


def test_equal_probabilities_go_to_the_first_class():
    assert segments((0, 2, 0.5, 0.5, 0)) == [(0, 2, "a", 0.5, False)]


def test_none_of_these_is_a_label_whatever_would_be_best():
    found = segments((0, 1, 0.4, 0.3, 0.3), (1, 2, 0.3, 0.4, 0.3), (2, 3, *A))
    assert found == [(0, 2, NONE, 0.4, True), (2, 3, "a", 0.9, False)]


def test_a_class_that_is_called_like_none_is_another_label():
    found = segments((0, 1, 0.4, 0.3, 0.3), (1, 2, 0, 0, 0.8))
    assert [(label, none) for *_, label, _, none in found] == [(NONE, True), (NONE, False)]


def test_seconds_that_no_window_shows_part_segments():
    found = segments((1, 3, *A), (2, 4, *A), (6, 8, *A))
    assert [(start, end) for start, end, *_ in found] == [(1, 4), (6, 8)]


def test_no_window():
    assert segments() == []
    assert Segment(0, 1, "a", 1.0).status == "ok"
