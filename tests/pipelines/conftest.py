"""Fixtures of the tests that ingest videos."""

from __future__ import annotations

import pytest

from tests.helpers.ingesting import in_process


@pytest.fixture
def here():
    """Ingest and check in this process, with a fake decoder (``tests.helpers.ingesting``)."""
    with in_process() as runner:
        yield runner


@pytest.fixture
def videos(tmp_path):
    """Twenty files in two classes; two shapes, one that cannot be decoded."""
    for number in range(20):
        path = tmp_path / "videos" / f"class {number % 2}" / f"{'wide' if number % 5 == 0 else 'v'}_{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if number == 7 else bytes([number, 1, 2]))
    return tmp_path / "videos"
