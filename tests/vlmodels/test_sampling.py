"""Frame sampling: what the published protocol picks, and what a pool must contain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmodels.sampling import pool_indices, pool_offsets, segment_indices, view_offset

frames = st.integers(1, 20_000)
segments = st.integers(1, 64)
views = st.integers(1, 8)


@given(frames, segments, st.floats(0, 1, exclude_max=True))
def test_indices_are_sorted_and_inside_the_video(n, count, offset):
    indices = segment_indices(n, count, offset)
    assert indices.shape == (count,)
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0
    assert indices[-1] < n


@given(frames, segments)
def test_the_centre_is_the_published_test_sampling(n, count):
    exact = [(2 * i + 1) * n // (2 * count) for i in range(count)]  # floor((i + 1/2) n / T) in integers
    assert segment_indices(n, count).tolist() == exact


@given(frames, segments, views)
def test_a_pool_holds_every_view_and_the_centre(n, count, how_many):
    offsets = pool_offsets(how_many)
    pool = pool_indices(n, count, offsets).reshape(count, len(offsets))
    assert (np.diff(pool.reshape(-1)) >= 0).all()
    for offset in [0.5, *(view_offset(view, how_many) for view in range(how_many))]:
        assert pool[:, offsets.index(offset)].tolist() == segment_indices(n, count, offset).tolist()


def test_worked_examples():
    assert segment_indices(300, 8).tolist() == [18, 56, 93, 131, 168, 206, 243, 281]
    assert segment_indices(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert pool_offsets(4) == (0.125, 0.375, 0.5, 0.625, 0.875)
    assert pool_offsets(1) == (0.5,)
    assert len(pool_offsets(3)) == 3  # the middle view of three is the centre already


@pytest.mark.parametrize("bad", [(0, 8, 0.5), (8, 0, 0.5), (8, 8, 1.0), (8, 8, -0.1), (8, 8, math.nan)])
def test_nonsense_is_refused(bad):
    with pytest.raises(ValueError, match=r"segment|offset"):
        segment_indices(*bad)


def test_an_empty_pool_is_refused():
    with pytest.raises(ValueError, match="at least one view"):
        pool_offsets(0)
