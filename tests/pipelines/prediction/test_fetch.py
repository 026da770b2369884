"""Videos of stores and web servers become files, in bounded time."""

from __future__ import annotations

import pytest

from pipelines.prediction.fetch import fetch
from tests.helpers.dripping import dripping
from vlmodels.errors import UserError


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_server_that_drips_costs_its_own_time_alone(tmp_path, where):
    with dripping(where) as server:
        with pytest.raises(UserError, match="--time-limit"):
            fetch(f"{server.address}/a.mp4", tmp_path / "a.mp4", 0.3)
        assert not server.was_sent.is_set()
