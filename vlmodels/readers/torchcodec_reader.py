"""Reads clips with torchcodec, which seeks to the wanted frames; only for files whose header says that it is right.

It needs FFmpeg's shared libraries (4 or later) on the machine, which its package does not bring along.
"""

from __future__ import annotations

import functools
from typing import Any

from vlmodels.readers.clip import ClipJob, Frames, VideoInfo, read_seeking
from vlmodels.readers.container import file_url

INSTALL = "pip install torchcodec, and FFmpeg 4 or later with its shared libraries (apt-get install ffmpeg)"


@functools.cache
def load() -> Any:
    """Return torchcodec's decoder class, or None where it, or FFmpeg, is not installed; to find out takes a while."""
    try:
        import torchcodec
    except (ImportError, OSError, RuntimeError):  # without FFmpeg older ones raise RuntimeError, newer ones wait
        return None
    if getattr(torchcodec, "ffmpeg_major_version", 0) is None:
        return None
    return torchcodec.decoders.VideoDecoder


def read(decoder: Any, job: ClipJob) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts.

    Raises:
        DisagreementError: torchcodec counts other frames than the container has.
        RuntimeError: torchcodec cannot read the file.
    """
    reader = decoder(
        file_url(job.path), stream_index=job.header.stream, dimension_order="NHWC", num_ffmpeg_threads=job.threads
    )
    return read_seeking(job, len(reader), lambda numbers: reader.get_frames_at(numbers).data.numpy(), "torchcodec")
