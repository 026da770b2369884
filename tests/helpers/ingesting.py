"""Ingests and checks videos in this process instead of over Ray: the same code but for the scheduling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa

from pipelines.ingestion import ingest as ingesting
from pipelines.ingestion.batch_task import decode_row
from pipelines.ingestion.clip_facts import ClipFacts
from pipelines.ingestion.decode import DecodeRequest, DecodeSettings
from pipelines.ingestion.decode_check import check_row, read_results
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.ingest import IngestReport
from pipelines.ingestion.isolation import worker_decoder
from pipelines.videos.inputs import Inputs, find_inputs

PAINT = "tests.helpers.fake_decoders:paint"
SETTINGS = DecodeSettings(frames=2, size=16, pool=1)


class InProcess:
    """Runs batches in this process.

    Attributes:
        batch_sizes: of each ingest so far, the number of videos of its batches.
        checked: paths of the videos that were checked so far.
    """

    def __init__(self):
        self.batch_sizes = []
        self.checked = []
        self._requests = []

    def ingest(self, videos: Path | Inputs, out: str | Path | Destination, settings=SETTINGS, **how) -> IngestReport:
        """Ingest a folder of videos, or inputs, with a fake decoder; nothing is printed."""
        inputs = videos if isinstance(videos, Inputs) else find_inputs([videos])
        destination = out if isinstance(out, Destination) else Destination.at(out)
        how = {"say": lambda line: None, "decode": PAINT, "run_batches": self.run_batches} | how
        return ingesting.ingest(inputs, destination, settings, **how)

    def run_batches(self, batches, destination: Destination, request: DecodeRequest, say) -> Iterator[ClipFacts]:
        """Decode batches; for the parameter of that name of ``ingest``."""
        self._requests.append(request)
        self.batch_sizes.append([len(batch.sources) for batch in batches])
        for batch in batches:
            table = decode_row(pa.Table.from_pylist([batch.to_row()]), destination, request)
            yield from map(ClipFacts.from_row, table.to_pylist())

    def stopped_after(self, clips: int) -> Callable[..., Iterator[ClipFacts]]:
        """Return a ``run_batches`` that is interrupted when the ingest has taken in so many clips, or all."""

        def run_batches(*args):
            yield from islice(self.run_batches(*args), clips)
            raise KeyboardInterrupt

        return run_batches

    def run_checks(self, batches, request: DecodeRequest):
        """Check batches; for the parameter of that name of ``undecodable``."""
        self._requests.append(request)
        for batch in batches:
            self.checked += [source.path for source in batch.sources]
            yield read_results(check_row(pa.Table.from_pylist([batch.to_row()]), request))

    def close(self) -> None:
        """End the decoder: its child must not be reaped in a later test, which may count what children took."""
        if self._requests:
            worker_decoder(self._requests[-1]).close()
        worker_decoder.cache_clear()


@contextmanager
def in_process() -> Iterator[InProcess]:
    """Yield what runs batches in this process; its decoder ends with the block."""
    runner = InProcess()
    try:
        yield runner
    finally:
        runner.close()
