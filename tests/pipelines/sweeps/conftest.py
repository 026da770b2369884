"""Ingested clips, and sweeps planned on them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.ingestion import ingest
from pipelines.ingestion.batch_task import decode_planned, worker_decoder
from pipelines.ingestion.decode import DecodeSettings
from pipelines.sweeps.plan import plan_sweep
from pipelines.videos.inputs import find_inputs
from tests.helpers.sweep_plans import SMALL_MSTA, request_of


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Ingested data without Ray: 8 classes of 8 clips of noise."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(64):
        path = root / "videos" / f"class {number % 8}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))

    def run(plan, out, settings, how, say):
        for batch in plan:
            yield from decode_planned(pa.Table.from_pylist([batch]), out, settings, how[1], how[2]).to_pylist()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "run_batches", run)
        settings = DecodeSettings(frames=4, size=48, pool=1)
        ingest.ingest(
            find_inputs([root / "videos"]),
            root / "data",
            settings,
            say=lambda _: None,
            decode="tests.helpers.fake_decoders:fitting",
        )
    worker_decoder.cache_clear()
    return root / "data"


@pytest.fixture
def planned(clips):
    """Plan the sweep of a command line."""

    def plan(*arguments, small=SMALL_MSTA, **parts):
        return plan_sweep(request_of(clips, *small, *arguments), **parts)

    return plan
