"""Reads few frames of a long video with PyAV: it decodes from the key frame before each, and stops after the last."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlmodels.readers import pyav_reader
from vlmodels.readers.clip import ClipJob, DisagreementError, Frames, Header, VideoInfo, in_order
from vlmodels.readers.container import open_video, prepare
from vlmodels.readers.times import Times

LEAST_SKIPPED = 16
"""Frames that a seek has to save."""


def read(job: ClipJob, times: Times) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts; frames are known by their times.

    Raises:
        VideoError: see ``pyav_reader.read``, which reads what cannot be read so.
    """
    if not times.stamped:
        return pyav_reader.read(job)
    wanted = job.indices(times.count)
    numbers = np.unique(wanted).tolist()
    done: list[Frames] = []
    block: list[Frames] = []
    coded: tuple[int, int] | None = None
    try:
        for _, frame in frames_at(job.path, job.header, times, numbers, job.threads):
            coded = coded or (frame.width, frame.height)
            block.append(pyav_reader.upright(frame, *coded))
            if len(block) == job.block_frames:
                done.append(job.transform(np.stack(block)))
                height, width = block[0].shape[:2]
                block = []
    except (av.FFmpegError, DisagreementError):
        return pyav_reader.read(job)
    if block:
        height, width = block[0].shape[:2]
        done.append(job.transform(np.stack(block)))
    return in_order(done, wanted), VideoInfo(width, height, job.header.fps, times.count, "pyav")


def frames_at(
    path: Path, header: Header, times: Times, numbers: Iterable[int], threads: int
) -> Iterator[tuple[int, Any]]:
    """Yield these numbers, ascending, each with its frame as PyAV has it; a number is drawn when it is needed.

    Raises:
        DisagreementError: a frame is shown at another time than any packet, or one is not there.
        av.FFmpegError: the stream cannot be decoded.
    """
    number_at = {start: number for number, start in enumerate(times.shown)}
    with open_video(path) as container:
        stream = container.streams[header.stream]
        prepare(stream, threads)
        position, decoded = -1, _decode(container, stream)
        for number in numbers:
            key = _key_before(times, number) if header.right_readers else None
            if key is not None and number_at[key] > position + LEAST_SKIPPED:
                container.seek(key, stream=stream)
                decoded = _decode(container, stream)
            for frame in decoded:
                position = number_at.get(frame.pts, -1)
                if not 0 <= position <= number:
                    raise DisagreementError
                if position == number:
                    yield number, frame
                    break
            else:
                raise DisagreementError


def _key_before(times: Times, number: int) -> int | None:
    """Return the time of the last key frame that is not after a frame; None if there is none."""
    at = bisect.bisect_right(times.keys, times.shown[number])
    return times.keys[at - 1] if at else None


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.size or packet.dts is None:  # see pyav_reader.decode
            yield from packet.decode()
