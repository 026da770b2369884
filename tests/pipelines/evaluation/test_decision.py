"""The threshold of "none of these", and its rates, by counting."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation.decision import (
    Answers,
    Rate,
    choose_threshold,
    decide,
    measure,
)
from pipelines.evaluation.metrics import ClassScores


def answers(right=(), wrong=(), unknown=()):
    """Answers of clips by the probability of their best class, and by what they are."""
    confidence = np.array([*right, *wrong, *unknown], dtype=np.float32)
    known = np.arange(len(confidence)) < len(right) + len(wrong)
    is_right = np.arange(len(confidence)) < len(right)
    return Answers(confidence, is_right, known, confidence, is_right)


HUNDREDTHS = [n / 100 for n in range(1, 101)]


@pytest.mark.parametrize(("share", "missed"), [(0.05, 5), (0.2, 20), (0.015, 1)])
def test_a_share_of_the_right_clips_is_refused(share, missed):
    held_out = answers(right=HUNDREDTHS, wrong=[0.001] * 50)
    threshold, problem = choose_threshold(held_out, share)
    assert not problem
    assert measure(held_out, threshold)["misses"]["clips"] == missed
    assert threshold == pytest.approx(missed / 100 + 0.005)  # halfway between two clips


def test_equal_clips_are_never_refused_beyond_the_share():
    held_out = answers(right=[0.5] * 30 + [0.9] * 10)
    threshold, *_ = choose_threshold(held_out, 0.1)
    assert measure(held_out, threshold)["misses"]["clips"] == 0


@pytest.mark.parametrize(("right", "share", "needed"), [(19, 0.05, 20), (50, 0.01, 100)])
def test_too_few_right_clips_give_no_threshold_and_the_count_that_it_takes(right, share, needed):
    threshold, problem = choose_threshold(answers(right=[0.9] * right, wrong=[0.5] * 100), share)
    assert threshold is None
    assert f"{right} of {right + 100} held-out clips are right" in problem
    assert f"takes {needed}" in problem


def test_clips_of_unseen_classes_change_no_threshold_and_are_counted():
    held_out = answers(right=HUNDREDTHS, unknown=[0.5] * 20)
    threshold, _ = choose_threshold(held_out, 0.05)
    assert threshold == choose_threshold(answers(right=HUNDREDTHS), 0.05).threshold
    assert measure(held_out, threshold)["false_alarms"]["clips"] == 20


def test_rates_are_counted_with_wilsons_interval():
    found = measure(answers(right=[0.1, 0.9, 0.9, 0.9], wrong=[0.2, 0.8], unknown=[0.3, 0.7, 0.95]), 0.5)
    counts = {name: (found[name]["clips"], found[name]["of"]) for name in ("misses", "caught", "false_alarms")}
    assert counts == {"misses": (1, 4), "caught": (1, 2), "false_alarms": (2, 3)}
    assert (found["known"], found["right"], found["unknown"]) == (6, 4, 3)
    rate = Rate.counted(np.arange(10) < 1)
    assert (rate.low, rate.high) == (pytest.approx(0.01788, abs=1e-4), pytest.approx(0.40415, abs=1e-4))


def test_what_has_no_clips_or_no_threshold_has_no_rate():
    assert set(measure(answers(unknown=[0.3]), 0.5)) == {"known", "right", "unknown", "false_alarms"}
    found = measure(answers(right=[0.3]), None)
    assert not {"misses", "caught", "false_alarms"} & set(found)
    assert found["ece"] == pytest.approx(0.7)


def test_a_clip_that_ties_is_not_right_and_one_of_no_class_is_unknown():
    scores = np.array([[0.5, 0.5, 0], [0.1, 0.8, 0.1], [0, 0, 1]], dtype=np.float32)
    found = Answers.of(ClassScores(np.array([0, 1, -1]), scores), scores)
    assert found.right.tolist() == [False, True, False]
    assert found.known.tolist() == [True, True, False]


def test_a_decision_is_chosen_on_known_clips_and_says_what_it_cannot_choose():
    rng = np.random.default_rng(0)
    targets = np.concatenate([np.arange(60) % 3, np.full(30, -1)])
    logits = rng.normal(size=(90, 2, 3))
    logits[np.arange(60), :, targets[:60]] += 1.5
    found = decide(logits, targets, 0.05)
    assert (found.sets["select"]["known"], found.sets["select"]["unknown"]) == (60, 30)
    assert 0 < found.threshold < 1
    assert not found.notes
    alone = decide(logits[:60], targets[:60], 0.05)
    assert alone.temperature == found.temperature
    assert alone.threshold == found.threshold
    few = decide(logits[:10], targets[:10], 0.05)
    assert (few.temperature, few.threshold, len(few.notes)) == (1, None, 2)
