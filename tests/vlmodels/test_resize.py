"""Stored frame sizes, and the resize that reaches them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmodels.resize import resize_cover, storage_shape, stored_short_side

sides = st.integers(1, 4000)


def test_short_side_leaves_room_for_crops():
    assert [stored_short_side(size) for size in (224, 48, 112, 336)] == [256, 56, 128, 384]


@given(sides, sides, st.sampled_from([56, 128, 256]))
def test_shapes_lie_on_a_grid_and_keep_the_orientation(width, height, short):
    h, w = storage_shape(width, height, short)
    assert min(h, w) == short
    assert max(h, w) % (short // 8) == 0
    assert max(h, w) <= 2.5 * short
    assert (w >= h) == (width >= height) or w == h
    if max(width, height) <= 2.5 * min(width, height):
        assert abs(max(h, w) / short - max(width, height) / min(width, height)) <= 1 / 16 + 1e-9


def test_worked_shapes():
    assert storage_shape(340, 256, 256) == (256, 352)
    assert storage_shape(1920, 1080, 256) == (256, 448)
    assert storage_shape(1080, 1920, 256) == (448, 256)
    assert storage_shape(320, 18, 256) == (256, 640)


@pytest.mark.parametrize(("h", "w"), [(240, 320), (320, 240), (18, 320), (1, 1), (256, 352), (721, 1283)])
def test_every_size_becomes_the_stored_one(h, w):
    frames = np.full((2, h, w, 3), 77, np.uint8)
    height, width = storage_shape(w, h, 256)
    sized = resize_cover(frames, height, width)
    assert sized.shape == (2, height, width, 3)
    assert sized.dtype == np.uint8
    assert sized.flags["C_CONTIGUOUS"]
    assert (sized == 77).all()


def test_what_sticks_out_is_cut_evenly():
    frames = np.zeros((1, 64, 320, 3), np.uint8)
    frames[:, :, 80:240] = 200  # exactly the 2.5 : 1 middle
    sized = resize_cover(frames, 64, 160)
    assert (sized == 200).all()


def test_small_patterns_do_not_alias():
    stripes = np.zeros((1, 512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_cover(stripes, 64, 64)[0, 4:-4].astype(int) - 128).max() < 12


def test_a_frame_of_the_right_size_is_left_alone():
    frames = np.random.default_rng(0).integers(0, 255, (3, 56, 70, 3), dtype=np.uint8)
    assert np.array_equal(resize_cover(frames, 56, 70), frames)
