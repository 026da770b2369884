"""Ingested clips, and sweeps planned on them."""

from __future__ import annotations

import pytest

from pipelines.ingestion.decode import DecodeSettings
from pipelines.sweeps.plan import plan_sweep
from tests.helpers.ingesting import in_process
from tests.helpers.sweep_plans import SMALL_MSTA, request_of


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Ingested data without Ray: 8 classes of 8 clips of noise."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(64):
        path = root / "videos" / f"class {number % 8}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))

    with in_process() as here:
        settings = DecodeSettings(frames=4, size=48, pool=1)
        here.ingest(root / "videos", root / "data", settings, decode="tests.helpers.fake_decoders:fitting")
    return root / "data"


@pytest.fixture
def planned(clips):
    """Plan the sweep of a command line."""

    def plan(*arguments, small=SMALL_MSTA, **parts):
        return plan_sweep(request_of(clips, *small, *arguments), **parts)

    return plan
