"""What runs in a decoding process: a stranger's file becomes the frames of a model's views, within limits."""

# Shapes: V view, T frame, H W pixel row and column.

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.serving.messages import Frames
from vlmodels.readers.clip import Header
from vlmodels.readers.header import read_header
from vlmodels.readers.times import read_times
from vlmodels.span import Cuts
from vlmodels.video import VideoError, VideoInfo, probe
from vlmodels.view_reader import ViewReader

WHOLE = "pipelines.serving.child:read_whole"
PARTS = "pipelines.serving.child:read_parts"
"""``module:function`` that a decoding process imports (``pipelines.ingestion.isolation``)."""
_USUAL_FPS = 25.0
"""Of files that state none, so that they have a length."""


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """Which frames are read, and of which videos.

    Attributes:
        views: the frames.
        max_seconds: of a video.
        max_pixels: of its pictures.
    """

    views: ViewReader
    max_seconds: float
    max_pixels: int


def read_whole(path: str, settings: ReadSettings) -> tuple[Frames, VideoInfo]:
    """Return the frames (V,T,H,W,3) of a video, those of ``Predictor.read_views``, and its facts.

    Raises:
        VideoError: it cannot be read, or is over a limit; the cause then begins with the limit's name and a colon.
    """
    _check(path, settings)
    return settings.views.read(path)


def read_parts(path: str, settings: ReadSettings, cuts: Cuts) -> list[tuple[Frames, VideoInfo] | VideoError]:
    """Return the frames (V,T,H,W,3) and facts of each part of a video, or why there is no such part.

    The frames per second of a part are the mean over its seconds, so that ``seconds_of`` is exact.

    Raises:
        VideoError: as ``read_whole``.
    """
    length = _check(path, settings)
    read: list[tuple[Frames, VideoInfo] | VideoError] = []
    for span, part in zip(cuts.spans, settings.views.read_parts(path, cuts.spans), strict=True):
        if isinstance(part, VideoError) or span is None:
            read.append(part)
            continue
        frames, info = part
        seconds = min(span.end, length) - span.start
        read.append((frames, replace(info, fps=info.n_frames / seconds if seconds > 0 else info.fps)))
    return read


def seconds_of(info: VideoInfo) -> float:
    """Return the length of a video, or of the part that was read."""
    return info.n_frames / (info.fps or _USUAL_FPS)


def _check(path: str, settings: ReadSettings) -> float:
    """Compare what the container says with the limits, before a frame is decoded; return the seconds of the video."""
    with Path(path).open("rb") as file:
        webp = file.read(12)[8:12] == b"WEBP"
    if webp:
        info = probe(path)
        pixels, seconds = info.width * info.height, seconds_of(info)
    else:
        header = read_header(Path(path))
        pixels, seconds = header.frame_bytes // 3, _length(path, header)
    if pixels > settings.max_pixels:
        raise VideoError(
            path,
            f"max_pixels: its pictures have {pixels} pixels, over the limit of {settings.max_pixels}; scale it down",
        )
    if not math.isfinite(seconds) or seconds > settings.max_seconds:
        raise VideoError(
            path, f"max_seconds: it is {seconds:.0f} s long, over the limit of {settings.max_seconds:g} s; cut it"
        )
    return seconds


def _length(path: str, header: Header) -> float:
    times = read_times(Path(path), header)
    if not times.shown:
        return header.shown / (header.fps or _USUAL_FPS)
    return float((times.end - times.offset) * times.base)
