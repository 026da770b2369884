"""What the pictures of a sweep are drawn from: matrices of layers, axes."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.sweeps.report.plots import axis_scales, insertion_matrix, numeric_scale


def test_cells_of_the_insertion_map_are_means_by_first_and_last_layer():
    scores = [("1-2", 10.0), ("1-2", 20.0), ("3-3", 7.0), ("2-3", None), ("all", 9.0), ("", 9.0), ("0-2", 9.0)]
    expected = np.full((3, 3), np.nan)
    expected[0, 1], expected[2, 2] = 15.0, 7.0
    np.testing.assert_array_equal(insertion_matrix([*scores, ("2-9", 9.0), ("3-1", 9.0)], 3), expected)


def test_axes_of_parallel_coordinates():
    first, last = axis_scales("layers", ["1-4", "3-4", None, "2-8"])
    assert (first.name, last.name) == ("layers: first", "layers: last")
    np.testing.assert_allclose(first.places, [0.0, 1.0, np.nan, 0.5])
    np.testing.assert_allclose(last.places, [0.0, 0.0, np.nan, 1.0])
    [rate] = axis_scales("lr", ["0.0001", "0.01", "0.001"])
    np.testing.assert_allclose(rate.places, [0.0, 1.0, 0.5])  # by the logarithm
    assert sorted(rate.ticks) == [(0.0, "0.0001"), (pytest.approx(0.5), "0.001"), (1.0, "0.01")]
    [shared] = axis_scales("shared", ["true", "nan", "true"])
    assert [text for _, text in shared.ticks] == ["nan", "true"]
    np.testing.assert_allclose(shared.places, [1.0, 0.0, 1.0], atol=0.03)
    assert numeric_scale("same", [3.0, 3.0]).places == [0.0, 0.0]
