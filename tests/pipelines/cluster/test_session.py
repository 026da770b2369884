"""A Ray that RAY_ADDRESS names and that is not there is told in one line, and soon."""

from __future__ import annotations

import socket

import pytest
import ray

from pipelines.cluster import session
from vlmodels.errors import UserError


@pytest.fixture
def apart(monkeypatch):
    """As in a process that has not joined any Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_listens(apart, monkeypatch, scheme):
    with socket.socket() as held:  # bound, and refusing
        held.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address}: no Ray answers there \(.*refused\); correct it"):
            session.connect()


@pytest.mark.parametrize("error", [ConnectionError("Could not find any\n running Ray"), ValueError("Invalid address")])
def test_ray_finds_none(apart, monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=auto: .*or unset RAY_ADDRESS for a Ray of this machine alone$"):
        session.connect()
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(type(error)):  # of a local one it is no mistake of the user's
        session.connect()
