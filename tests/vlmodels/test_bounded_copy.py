"""A copy ends when its time is up, whatever the source does."""

from __future__ import annotations

import contextlib
import io
import threading

import pytest

from vlmodels.bounded_copy import copy_within

SLOW, LARGE = TimeoutError("slow"), ValueError("large")


def copied(opened, path, **limits):
    limits = {"most": 100, "seconds": 60.0, **limits}
    with path.open("wb") as file:
        return copy_within(opened, file, too_large=LARGE, too_slow=SLOW, **limits)


def test_a_stream_is_copied(tmp_path):
    assert copied(lambda: io.BytesIO(b"video"), tmp_path / "a", most=5) == 5
    assert (tmp_path / "a").read_bytes() == b"video"


def test_more_than_the_limit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="large"):
        copied(lambda: io.BytesIO(b"video"), tmp_path / "a", most=4)


def test_the_error_of_a_source_is_the_callers(tmp_path):
    def opened():
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        copied(opened, tmp_path / "a")


@pytest.mark.parametrize("stuck", ["open", "read"])
def test_a_source_that_never_answers_is_left(tmp_path, stuck):
    released, ended = threading.Event(), threading.Event()

    class Stream(io.BytesIO):
        def read1(self, _):
            if stuck == "read":
                released.wait(30)
            return b"x"

        def close(self):
            ended.set()
            super().close()

    @contextlib.contextmanager
    def opened():
        if stuck == "open":
            released.wait(30)
        with Stream() as stream:
            yield stream

    with pytest.raises(TimeoutError, match="slow"):
        copied(opened, tmp_path / "a", seconds=0.1, cut=released.set)
    assert ended.wait(10), "its thread has ended"
    assert (tmp_path / "a").read_bytes() == b""
