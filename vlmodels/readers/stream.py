"""A video as a stream of wanted frames, each drawn once: what many overlapping parts of a long video are made of."""

# Shapes: H W pixel row and column of the upright picture.

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import numpy as np

from vlmodels.readers import picture_folder, pyav_cuts, pyav_reader, webp
from vlmodels.readers.clip import DisagreementError, Frames, Header, VideoError
from vlmodels.readers.header import LEAST_DECODED, read_header
from vlmodels.readers.times import Times, decoded_times, read_times

Size = tuple[int, int]
"""Width and height of a picture as it is coded, before it is turned upright."""


class StreamedFrame(NamedTuple):
    """A frame: its number, its size, and how it is drawn ``[H, W, 3]`` in the size of the first frame of a part."""

    number: int
    size: Size
    draw: Callable[[Size], Frames]


class CountError(Exception):
    """A video has other frames than its packets say, or ends before them; ``FrameStream.recounted`` knows which."""


class FrameStream(Protocol):
    """A video from which frames are drawn in order."""

    @property
    def times(self) -> Times:
        """When each frame is shown."""

    @property
    def damage(self) -> str:
        """Why the video ends before its header says; "" where it does not."""

    def frames(self, numbers: Iterable[int]) -> Iterator[StreamedFrame]:
        """Yield the frames of these numbers, which ascend; a number is drawn when its frame is needed.

        Raises:
            CountError: the video has other frames than ``times`` says.
            VideoError: a frame cannot be read, and nothing can be read after it.
        """

    def recounted(self) -> FrameStream:
        """Return the stream of the frames that can be decoded, counted by decoding all of them.

        Raises:
            VideoError: there is none.
        """


def open_stream(path: Path, fps: float = 0.0, threads: int = 1) -> FrameStream:
    """Open a video file, an animated WebP picture, or a folder of numbered pictures with ``fps`` frames a second.

    A truncated file is opened too: what it holds can be read, and ``damage`` says what is missing.

    Raises:
        VideoError: it cannot be read at all (``vlmodels.video.read_clip``).
    """
    if webp.is_webp(path):
        facts = webp.read(path, lambda _: np.zeros(1, np.int64), lambda frames: frames)[1]
        return _Pictures(path, Times.by_rate(facts.n_frames, facts.fps), partial(webp.pictures_at, path))
    if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error here
        pictures = picture_folder.list_pictures(path)
        read = partial(picture_folder.pictures_at, path, pictures)
        return _Pictures(path, Times.by_rate(len(pictures), fps), read)
    header = read_header(path, truncated=True)
    return _File(path, header, read_times(path, header), threads, header.truncated)


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures with numbers, which are always all there."""

    path: Path
    times: Times
    read: Callable[[Iterable[int]], Iterator[tuple[int, Frames]]]
    damage: str = ""

    def frames(self, numbers: Iterable[int]) -> Iterator[StreamedFrame]:
        for number, picture in self.read(numbers):
            yield StreamedFrame(number, (picture.shape[1], picture.shape[0]), partial(_unsized, picture))

    def recounted(self) -> FrameStream:
        return self


def _unsized(picture: Frames, _: Size) -> Frames:
    return picture


@dataclass(frozen=True, slots=True)
class _File:
    """A file that FFmpeg decodes; frames are known by their times, or else counted."""

    path: Path
    header: Header
    times: Times
    threads: int
    damage: str

    def frames(self, numbers: Iterable[int]) -> Iterator[StreamedFrame]:
        read = self._stamped if self.times.stamped else self._counted
        try:
            yield from read(numbers)
        except (av.FFmpegError, DisagreementError) as error:
            raise CountError from error

    def _stamped(self, numbers: Iterable[int]) -> Iterator[StreamedFrame]:
        for number, frame in pyav_cuts.frames_at(self.path, self.header, self.times, numbers, self.threads):
            yield _streamed(number, (frame.width, frame.height), frame)

    def _counted(self, numbers: Iterable[int]) -> Iterator[StreamedFrame]:
        waiting = iter(numbers)
        wanted = next(waiting, None)
        seen, size = 0, None
        dropped = self.header.dropped
        for index, frame in enumerate(pyav_reader.decode(self.path, self.header, self.threads)):
            size = size or (frame.width, frame.height)  # as pyav_reader: that of the file's first frame
            seen += 1 + dropped.get(index, 0) + (dropped.get(-1, 0) if index == 0 else 0)
            while wanted is not None and wanted < seen:
                yield _streamed(wanted, size, frame)
                wanted = next(waiting, None)
            if wanted is None:
                return
        if wanted is not None:
            raise DisagreementError

    def recounted(self) -> FrameStream:
        times, stopped = decoded_times(self.path, self.header, self.threads)
        why = f" ({stopped})" if stopped else ""
        if not times.count:
            raise VideoError(self.path, pyav_reader.why_none(self.header, why))
        damage = self.damage
        short = times.count < LEAST_DECODED * self.header.shown
        if not damage and (stopped or (short and self.header.promised)):
            damage = f"damaged: {times.count} of {self.header.shown} frames can be decoded{why}"
        return replace(self, times=times, header=replace(self.header, shown=times.count), damage=damage)


def _streamed(number: int, size: Size, frame: object) -> StreamedFrame:
    return StreamedFrame(number, size, lambda wanted: pyav_reader.upright(frame, *wanted))
