"""The first stage: videos become frames, in a child process that may hang or crash; CPU only."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.ingestion.isolation import IsolatedDecoder
from pipelines.prediction.fetch import VideoFiles, video_files
from pipelines.prediction.videos import ListedVideo
from pipelines.storage.place import is_uri
from vlmodels.errors import UserError
from vlmodels.span import Cuts, Span
from vlmodels.video import Frames, VideoError, VideoInfo
from vlmodels.view_reader import ViewReader

DECODE = "pipelines.prediction.decode:decode_views"
DECODE_CUTS = "pipelines.prediction.decode:decode_cuts"


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How videos are decoded.

    Attributes:
        reader: which frames are looked at.
        folder: what relative paths are relative to.
        time_limit_s: seconds for each video.
        decode: ``module:function`` of a function ``(path, reader) -> (frames, info)`` like ``decode_views``.
    """

    reader: ViewReader
    folder: str
    time_limit_s: float = 300.0
    decode: str = DECODE


@dataclass(frozen=True, slots=True)
class Look:
    """The frames of a video, or of a part of it, that the model looks at; or why there are none.

    Attributes:
        index: the video's place in the listing.
        start: seconds from which on it is looked at; None for its start.
        end: seconds up to which; None for its end.
        frames: uint8 (clips,T,H,W,3).
        reason: why there are no frames.
        seconds: that it took.
        bytes: size of the file; None if unknown.
        mtime_ns: its time of change.
    """

    index: int
    start: float | None = None
    end: float | None = None
    frames: Frames | None = None
    reason: str = ""
    seconds: float = 0.0
    bytes: int | None = None
    mtime_ns: int | None = None


class FatalError(Exception):
    """Nothing can be decoded on this machine; the message says why."""


def decode_views(path: str, reader: ViewReader) -> tuple[Frames, VideoInfo]:
    """Return the views (clips,T,H,W,3) of a video, and its facts; runs in the child.

    Raises:
        VideoError: the video cannot be read.
    """
    return reader.read(path)


def decode_cuts(path: str, reader: ViewReader, cuts: Cuts) -> list[tuple[Frames, VideoInfo] | VideoError]:
    """Return the views of parts of a video, or why there is no such part; runs in the child.

    Raises:
        VideoError: the video cannot be read at all.
    """
    return reader.read_parts(path, cuts.spans, cuts.fps)


@functools.lru_cache(maxsize=1)
def decoder_of_process(request: DecodeRequest) -> IsolatedDecoder:
    """Return the decoder of this process, which all its batches share."""
    reader = request.reader
    return IsolatedDecoder(request.decode, reader, reader.most_bytes, request.time_limit_s, DECODE_CUTS)


def decode_batch(videos: Sequence[ListedVideo], request: DecodeRequest) -> Iterator[Look]:
    """Decode videos in order; the frames of each are valid until the next is asked for.

    Raises:
        FatalError: no decoder can run here, or there is no room for frames or copies.
    """
    same_file = itertools.groupby(videos, key=lambda one: (one.video, one.fps) if one.span else one.index)
    files = [list(parts) for _, parts in same_file]
    names, limit_s = [parts[0].video for parts in files], request.time_limit_s
    try:
        with video_files(names, Path(request.folder), limit_s) as paths:
            yield from _decode_files(files, paths, decoder_of_process(request))
    except UserError as error:
        raise FatalError(f"{error} (on {socket.gethostname()})") from error
    except OSError as error:
        raise FatalError(f"cannot fetch or decode videos on {socket.gethostname()}: {error}; make room") from error


def _decode_files(files: Sequence[list[ListedVideo]], paths: VideoFiles, decoder: IsolatedDecoder) -> Iterator[Look]:
    cuts = [Cuts(tuple(one.span for one in parts), parts[0].fps) if parts[0].span else None for parts in files]
    decoded = decoder(paths, cuts)
    began = time.monotonic()
    try:
        for number, parts in enumerate(files):
            for video in parts:
                found = next(decoded)
                start, end = times_of(video.span, found.info)
                reason = paths.problems.get(number, "") or found.error
                frames = None if reason else found.frames
                size, mtime_ns = (None, None) if is_uri(video.video) else state_of(paths[number])
                yield Look(video.index, start, end, frames, reason, time.monotonic() - began, size, mtime_ns)
                began = time.monotonic()
            paths.drop(number)
    finally:
        decoded.close()


def times_of(span: Span | None, info: VideoInfo | None) -> tuple[float | None, float | None]:
    """Return start and end of a part in seconds, None for those of the video; of frames by the mean rate."""
    if span is None:
        return None, None
    scale = 1.0
    if span.unit == "frames":
        if info is None or not info.fps:
            return None, None
        scale = info.fps
    return span.start / scale, None if np.isinf(span.end) else span.end / scale


def state_of(path: str) -> tuple[int | None, int | None]:
    """Return size (bytes) and time of change (ns) of a file or folder; None and None if it cannot be looked at."""
    try:
        found = os.stat(path)  # noqa: PTH116 - both numbers of one call
    except (OSError, ValueError):
        return None, None
    return found.st_size, found.st_mtime_ns
