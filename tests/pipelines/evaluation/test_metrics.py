"""Metrics against scikit-learn; every video once."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from pipelines.evaluation.metrics import ClassScores, accuracy, harmonic_mean, set_metrics
from pipelines.protocols.split import EvalSet, Example
from pipelines.training.errors import DivergedError


def random_scores(videos=300, classes=9, seed=0):
    rng = np.random.default_rng(seed)
    return ClassScores(rng.integers(classes, size=videos), rng.random((videos, classes)).astype(np.float32))


def test_accuracy_equals_scikit_learn():
    result = random_scores()
    ours = accuracy(result)
    for k in (1, 5):
        oracle = 100 * top_k_accuracy_score(result.targets, result.scores, k=k, labels=range(9))
        assert ours[f"top{k}"] == pytest.approx(oracle)


def test_fewer_than_five_classes_make_top5_all():
    assert accuracy(random_scores(classes=3))["top5"] == 100


def test_undecodable_videos_count_as_wrong():
    result = ClassScores(np.array([0, 1]), np.eye(2, dtype=np.float32))
    assert accuracy(result)["top1"] == 100
    assert accuracy(result, unscored=2)["top1"] == 50
    test = EvalSet("base", ("a", "b"), (Example("x", 0), Example("y", 1)), (("z.mp4", "zero bytes"),))
    metrics = set_metrics(test, result)
    assert metrics["top1"] == pytest.approx(200 / 3)
    assert (metrics["n_listed"], metrics["n_scored"], metrics["n_quarantined"]) == (3, 2, 1)


def test_a_constant_classifier_earns_nothing_by_ties():
    assert accuracy(ClassScores(np.array([0, 1, 2]), np.ones((3, 3), dtype=np.float32)))["top1"] == 0


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DivergedError, match="NaN"):
        accuracy(ClassScores(np.array([0, 1, 2]), np.full((3, 3), np.nan, dtype=np.float32)))


def test_harmonic_mean_is_the_published_one():
    assert harmonic_mean(78.5, 66.5) == pytest.approx(72.0, abs=0.05)  # MSTA table 2, K400
    assert harmonic_mean(0, 0) == 0
