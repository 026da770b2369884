"""Which stored frames a test view shows."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.shards.views import view_positions, views
from tests.helpers.fakes import DenseStore, FakeStore
from vlmodels.errors import UserError
from vlmodels.sampling import pool_starts, view_indices

STORE = FakeStore()


def test_views_are_the_published_frames():
    centre = views(STORE, "clip0", 1)
    assert centre.shape == (1, 4, 56, 56, 3)
    assert np.array_equal(centre[0], STORE.frames("clip0")[1::3])
    with pytest.raises(UserError, match="--pool 4"):
        views(STORE, "clip0", 4)


@pytest.mark.parametrize(("pool", "clips"), [(1, 1), (3, 1), (3, 3), (3, 2), (4, 4), (5, 3)])
def test_dense_views_are_the_published_frames(pool, clips):
    store = DenseStore([300, 301, 50, 9], pool)
    for clip_id, n in store.lengths.items():
        shown = views(store, clip_id, clips)[..., 0, 0, 0]
        assert shown.tolist() == view_indices(n, 8, clips, "dense", 16).tolist()


def test_dense_views_that_were_not_stored():
    with pytest.raises(UserError, match=r"data\.clips=3 needs frames .*\(starts \[0\.5\]\).*--pool 3"):
        view_positions(pool_starts(1), 3)
    assert view_positions(pool_starts(3), 3) == [1, 2, 3]
    assert view_positions(pool_starts(3), 1) == [0]
