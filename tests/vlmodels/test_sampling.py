"""Frame sampling: what the published protocol picks, and what a pool must contain."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmodels.sampling import (
    Starts,
    dense_indices,
    dense_pool_indices,
    pool_indices,
    pool_offsets,
    pool_starts,
    segment_indices,
    view_indices,
    view_offset,
)

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


def dense_view(n, count, stride, start):
    """A clip as M2-CLIP's release takes it in tests: of a video whose last frame is repeated."""
    padded = [*range(n), *[n - 1] * (count * stride)]
    return padded[start : start + count * stride : stride]


@given(frames, segments, st.integers(1, 32), st.integers(2, 6))
def test_dense_views_are_the_published_ones(n, count, stride, how_many):
    room = max(n - (stride * (count - 1) + 1), 0)
    assert dense_indices(n, count, stride).tolist() == dense_view(n, count, stride, room // 2)
    for view in range(how_many):
        start = round(room / (how_many - 1) * view)
        assert dense_indices(n, count, stride, view, how_many).tolist() == dense_view(n, count, stride, start)


@given(frames, segments, st.integers(1, 32), views)
def test_a_dense_pool_holds_every_view_and_the_centre(n, count, stride, how_many):
    starts = pool_starts(how_many)
    pool = dense_pool_indices(n, count, stride, how_many).reshape(count, len(starts))
    assert pool[:, 0].tolist() == dense_indices(n, count, stride).tolist()
    if how_many > 1:
        assert pool[:, 1:].T.tolist() == view_indices(n, count, how_many, "dense", stride).tolist()


@given(frames, segments)
def test_m2clip_s_own_segment_centres_are_at_most_a_frame_away(n, count):
    ends = [round((n - 1) / count * i) for i in range(count + 1)]
    theirs = [(start + end) // 2 for start, end in pairwise(ends)]
    assert np.abs(segment_indices(n, count) - theirs).max() <= 1


def test_worked_dense_examples():
    assert [dense_indices(300, 8, 16, view, 3)[0] for view in range(3)] == [0, 94, 187]
    assert dense_indices(300, 8, 16).tolist() == [93, 109, 125, 141, 157, 173, 189, 205]  # not 94: half of 187
    assert dense_indices(50, 8, 16).tolist() == [0, 16, 32, 48, 49, 49, 49, 49]
    for count, stride in ((16, 8), (32, 4)):
        assert np.ptp(dense_indices(300, count, stride)) in range(112, 128)
    assert pool_starts(3) == (0.5, 0.0, 0.5, 1.0)
    assert pool_starts(1) == (0.5,)
    assert isinstance(pool_starts(1), Starts)


@given(frames, segments, views)
def test_segment_views_are_the_pool_s(n, count, how_many):
    expected = pool_indices(n, count, [view_offset(view, how_many) for view in range(how_many)])
    assert view_indices(n, count, how_many).T.reshape(-1).tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [(0, 8, 16), (8, 0, 16), (8, 8, 0)])
def test_dense_nonsense_is_refused(bad):
    with pytest.raises(ValueError, match="cannot take"):
        dense_indices(*bad)
    with pytest.raises(ValueError, match="at least one view"):
        pool_starts(0)
