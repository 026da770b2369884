"""Reads clips with decord, which seeks to the wanted frames; only for files whose header says that it is right."""

from __future__ import annotations

from typing import Any

from vlmodels.readers.clip import ClipJob, Frames, VideoInfo, read_seeking
from vlmodels.readers.container import file_url

INSTALL = "pip install decord"


def load() -> Any:
    """Return the decord module, or None where it is not installed."""
    try:
        import torch  # noqa: F401 - before decord: in the other order, CUDA builds of the two crash each other

        import decord  # isort: skip
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def read(decord: Any, job: ClipJob) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts.

    Raises:
        DisagreementError: decord counts other frames than the container has.
        RuntimeError: decord cannot read the file; it has errors of its own, too.
    """
    reader = decord.VideoReader(file_url(job.path), num_threads=job.threads)
    return read_seeking(job, len(reader), lambda numbers: reader.get_batch(numbers).asnumpy(), "decord")
