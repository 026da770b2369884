"""A local Ray that cannot start is told in one line."""

from __future__ import annotations

import pytest

from pipelines.cluster.local_start import check_temp_dir, start_patiently
from pipelines.cluster.session import connect
from vlmodels.errors import UserError

LONG = "/tmp/" + "long" * 12


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_with_a_long_path_is_refused(monkeypatch, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, LONG)
    with pytest.raises(UserError, match=rf"^{name} is too long for Ray's sockets .*{LONG}.*; set RAY_TMPDIR"):
        check_temp_dir()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_temp_dir()


def failing(times, error):
    calls = []

    def start():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "up"

    return start, calls


def test_a_start_that_fails_once_is_tried_again():
    start, calls = failing(1, TimeoutError("the current node timed out during startup"))
    ended = []
    assert start_patiently(start, lambda: ended.append(1)) == "up"
    assert (len(calls), len(ended)) == (2, 1)


@pytest.mark.parametrize("error", [RuntimeError("Failed to start\nGCS"), TimeoutError(), PermissionError(13, "denied")])
def test_a_start_that_fails_twice_is_told(error):
    start, calls = failing(9, error)
    with pytest.raises(
        UserError, match=r"^Ray did not start on this machine, tried twice \(.+\); if the machine is busy"
    ):
        start_patiently(start, lambda: None)
    assert len(calls) == 2


def test_nothing_is_started_below_a_long_path(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", LONG)
    with pytest.raises(UserError, match="RAY_TMPDIR is too long"):
        connect()
