"""Pictures of predictions: what they compute, and that they are drawn at any size."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from pipelines.evaluation.metrics import ClassScores, accuracy
from pipelines.records.summary import Summary
from pipelines.reports import score_plots
from pipelines.reports.prediction_plots import (
    Predicted,
    class_gain,
    embeddings,
    label_correlation,
    predicted,
    rows_drawn,
)
from pipelines.reports.score_plots import Line, Point, parameter_scatter, shot_curves
from tests.helpers.fakes import predictions_for, record_of

NAMES = tuple(f"class {i} with a long name" for i in range(90))


def made(classes, videos=60, **kwargs):
    return predicted(predictions_for({"s": NAMES[:classes]}, videos=videos, **kwargs), "s")


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved; each stays open for the test."""
    figures, close = [], plt.close
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    close("all")


def test_gains_are_differences_of_accuracy_by_class_sorted(tmp_path, drawn):
    ours, plain = made(5, shift=2.0), made(5, shift=0.1)
    class_gain(ours, plain, NAMES[:5], tmp_path / "gain")
    widths = [bar.get_width() for bar in drawn[0].axes[0].patches]
    accuracy = [[100 * p.right[p.targets == c].mean() for c in range(5)] for p in (ours, plain)]
    assert widths == pytest.approx(sorted(np.subtract(*accuracy)))


def test_of_many_classes_both_ends_are_drawn(tmp_path, drawn):
    class_gain(made(90, 180), made(90, 180, shift=0.0), NAMES, tmp_path / "gain")
    axes = drawn[0].axes[0]
    assert len(axes.patches) == 60
    assert "30 classes between" in axes.get_xlabel()


def test_others_predictions_are_taken_for_our_clips_in_our_order_of_classes():
    ours, theirs = made(3, videos=20), made(3, seed=1)
    turned = Predicted(
        theirs.clips[::-1], (theirs.targets + 1)[::-1] % 3, np.roll(theirs.scores, 1, 1)[::-1], theirs.video[::-1],
        np.roll(theirs.text, 1, 0),
    )  # fmt: skip
    names = [NAMES[2], *NAMES[:2]]
    found = turned.on(ours, names, NAMES[:3])
    np.testing.assert_array_equal(found.scores, theirs.scores[:20])
    np.testing.assert_array_equal(found.video, theirs.video[:20])
    np.testing.assert_array_equal(found.text, theirs.text)
    np.testing.assert_array_equal(found.right, theirs.right[:20])
    assert ours.on(theirs, NAMES[:3], NAMES[:3]) is None  # not all of its clips
    assert turned.on(ours, NAMES[:3], NAMES[:3]) is None  # other targets
    assert turned.on(ours, NAMES[1:4], NAMES[:3]) is None


def test_predictions_that_do_not_fit_the_classes_are_none():
    assert predicted({}, "s") is None
    assert made(3).fits(3)
    assert not made(3).fits(2)
    assert not made(3).fits(4)


def test_chance_is_inside_the_axes(tmp_path, drawn):
    summary = Summary([record_of(scores=20.0)])  # of two classes
    score_plots.accuracy_bars([summary], ["x"], list(summary.cells), tmp_path / "bars")
    assert drawn[0].axes[0].get_ylim()[1] > 50


def test_embeddings_are_few_seeded_and_named(tmp_path, drawn):
    one, again = (embeddings(made(25, 100), made(25, 100), NAMES, tmp_path / n, label="msta") for n in ("a", "b"))
    assert one.read_bytes() == again.read_bytes()
    left, right = drawn[0].axes
    assert (left.get_title(), right.get_title()) == ("msta", "zero-shot")
    assert len(left.collections) == 20
    assert embeddings(made(2, 4), None, NAMES, tmp_path / "few", label="x") is None
    assert len(rows_drawn(np.arange(9000) % 15)) == 2000


def test_correlations_are_cosines_on_one_scale(tmp_path, drawn):
    ours, plain = made(6).text, made(6, seed=3).text
    label_correlation(ours, plain, NAMES[:6], tmp_path / "labels", label="msta")
    left, right = (axes.images[0] for axes in drawn[0].axes[:2])
    unit = ours.astype(np.float32) / np.linalg.norm(ours.astype(np.float32), axis=1, keepdims=True)
    np.testing.assert_allclose(left.get_array(), unit @ unit.T, atol=1e-5)
    assert left.get_clim() == right.get_clim()


def test_curves_and_scatter_take_missing_published_scores_and_nothing_that_trains(tmp_path):
    lines = [Line("a", [Point(2, 50), Point(4, 60, 1.0)], [Point(4, 61)]), Line("b", [Point(16, 70)])]
    assert shot_curves(lines, tmp_path / "shots").is_file()
    sizes = [Line("zero", [Point(0, 40)]), Line("a", [Point(1e6, 50, 0.5)], [Point(2e6, 52)])]
    assert parameter_scatter(sizes, tmp_path / "x.y", ylabel="HM (%)").name == "x.y.png"
    assert parameter_scatter(sizes[:1], tmp_path / "only", ylabel="HM (%)").is_file()


def test_pictures_count_ties_as_the_score_does():
    scores = np.array([[0.5, 0.5, 0.0], [0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [1 / 3, 1 / 3, 1 / 3]], dtype=np.float32)
    targets = np.array([0, 1, 2, 1])
    found = Predicted(np.array(list("abcd")), targets, scores, None, None)
    assert found.best.tolist() == [1, 1, 0, 0]
    assert 100 * found.right.mean() == accuracy(ClassScores(targets, scores))["top1"]
