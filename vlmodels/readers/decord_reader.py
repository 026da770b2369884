"""Reads clips with decord, which seeks to the wanted frames; only for files whose header says that it is right."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmodels.readers.clip import ClipJob, DisagreementError, Frames, VideoInfo, in_order
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
    n_frames = job.header.shown
    if len(reader) != n_frames:
        raise DisagreementError
    wanted = job.indices(n_frames)
    unique = np.unique(wanted).tolist()
    done = []
    height = width = 0
    for start in range(0, len(unique), job.block_frames):
        block = reader.get_batch(unique[start : start + job.block_frames]).asnumpy()
        height, width = block.shape[1:3]
        done.append(job.transform(block))
    return in_order(done, wanted), VideoInfo(width, height, job.header.fps, n_frames, "decord")
