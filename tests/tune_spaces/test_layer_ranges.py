"""Ranges of layers, and their scaling to towers of other depths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_spaces.layer_ranges import all_ranges, scale_layers
from vlmodels.errors import UserError

DEPTHS = st.integers(1, 32)


def ends(text):
    return tuple(int(end) for end in text.split("-"))


def test_all_ranges_of_three_layers():
    assert all_ranges(3) == ("1-1", "1-2", "1-3", "2-2", "2-3", "3-3")


def test_the_papers_ranges_are_scaled_to_the_toy_towers_and_to_deeper_ones():
    ranges = ("1-6", "1-12", "7-12", "8-12", "10-12")
    assert [scale_layers(text, 4) for text in ranges] == ["1-2", "1-4", "3-4", "3-4", "4-4"]
    assert [scale_layers(text, 24) for text in ranges] == ["1-12", "1-24", "13-24", "15-24", "19-24"]
    assert [scale_layers(text, 12) for text in ranges] == list(ranges)


def test_numbers_of_layers_are_scaled_and_all_and_0_stay():
    assert [scale_layers(text, 4) for text in ("0", "1", "6", "7", "12", "all")] == ["0", "1", "2", "3", "4", "all"]
    with pytest.raises(UserError, match="8-12"):
        scale_layers("last", 4)


@settings(deadline=None)
@given(depth=DEPTHS, data=st.data())
def test_scaled_ranges_lie_within_the_tower_and_keep_their_order(depth, data):
    range_ = st.sampled_from(all_ranges(12))
    one, other = data.draw(range_), data.draw(range_)
    (start, stop), (start_, stop_) = ends(scale_layers(one, depth)), ends(scale_layers(other, depth))
    assert 1 <= start <= stop <= depth
    for mine, theirs, before, after in zip(ends(one), ends(other), (start, stop), (start_, stop_), strict=True):
        assert mine > theirs or before <= after
    if depth <= 12:  # the plain formula
        assert (start, stop) == tuple(-(-layer * depth // 12) for layer in ends(one))


@settings(deadline=None)
@given(depth=st.integers(12, 48), cut=st.integers(1, 11))
def test_adjacent_ranges_stay_adjacent_in_deeper_towers(depth, cut):
    (first, before), (after, last) = ends(scale_layers(f"1-{cut}", depth)), ends(scale_layers(f"{cut + 1}-12", depth))
    assert (first, after, last) == (1, before + 1, depth)
