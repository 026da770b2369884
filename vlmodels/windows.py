"""Reads a long video as overlapping windows: each frame is decoded and resized once, few are ever in memory.

A window is looked at as if its seconds were cut out as a file (``vlmodels.cuts.read_cut``): the same frames.

Windows of W seconds begin every S seconds, as long as they end within the video. If frames follow after the last of
them, one more window, as long as the others, ends with the video. A window in which no frame is shown, as in a
recording that stands still, is left out. If the file is damaged, the windows before the damage are read, and then
``VideoError`` says what is wrong.
"""

# Shapes: V view, T frame of a view, P chosen frame, H W pixel row and column.

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmodels.errors import UserError
from vlmodels.readers.clip import Frames, Transform, VideoError
from vlmodels.readers.stream import CountError, FrameStream, Size, StreamedFrame, open_stream
from vlmodels.readers.times import SLACK, SpanError, Times, exact
from vlmodels.span import MICRO, Span, seconds_text

ChooseViews = Callable[[int], NDArray[np.int64]]
"""Frame numbers ``[V, T]`` of the views of a video with so many frames."""
MOST_KEPT = 2048
"""Frames of open windows in memory: 0.7 GB of the size that is stored for models of 224 pixels."""


def iter_windows(
    path: str | Path,
    window: float,
    stride: float,
    views: ChooseViews,
    shrink: Transform,
    *,
    span: Span | None = None,
    fps: float = 0.0,
    threads: int = 1,
) -> WindowReader:
    """Return an iterator over the windows of a video: each a ``Span`` and its frames ``[V, T, h, w, 3]``.

    Args:
        path: a video file, an animated WebP picture, or a folder of numbered pictures.
        window: seconds of a window.
        stride: seconds from the start of a window to that of the next.
        views: chooses among the frames of a window.
        shrink: the resize; it gets each frame ``[1, H, W, 3]`` once.
        span: the part of the video that is divided into windows; None for all of it.
        fps: frames per second of a folder of pictures.
        threads: threads of the decoder.

    Raises:
        UserError: window or stride is not above 0, or the stride longer than the window.
        VideoError: the video cannot be read at all, has no such part, or is shorter than a window; a window or a stride
            is shorter than a frame; so many windows overlap that their frames would fill the memory. In the middle of
            the iteration: the video is damaged there.
    """
    tiling = _Tiling.of(window, stride, span)
    path = Path(path)
    stream = open_stream(path, fps, threads)
    return WindowReader(path, stream, tiling, views, shrink)


def tile(start: float, end: float, window: float, stride: float) -> list[Span]:
    """Return the windows over a part of a video in which frames are shown all along; a shorter part is one window."""
    last, length = exact(end), exact(window)
    starts = _Starts.between(exact(start), last, length, exact(stride))
    return [Span(float(one), float(min(one + length, last))) for one in starts.after(0)]


class WindowReader(Iterator[tuple[Span, Frames]]):
    """The windows of a video, in order.

    Attributes:
        start: seconds at which the first window begins.
        end: seconds at which the last window ends, if the video is whole.
        count: number of windows, if the video is whole and has no gap.
    """

    def __init__(self, path: Path, stream: FrameStream, tiling: _Tiling, views: ChooseViews, shrink: Transform) -> None:
        self._path, self._tiling, self._views, self._shrink = path, tiling, views, shrink
        try:
            starts, end = tiling.starts(stream.times)
            self._check_memory(stream.times, len(starts))
        except SpanError as error:
            raise VideoError(path, stream.damage or str(error)) from error
        self.start, self.end, self.count = float(starts.first), float(end), len(starts)
        self._windows = self._read(stream)

    def __next__(self) -> tuple[Span, Frames]:
        return next(self._windows)

    def close(self) -> None:
        """Close the file; there are no more windows then."""
        self._windows.close()

    def _read(self, stream: FrameStream) -> Generator[tuple[Span, Frames]]:
        done = 0
        try:
            for window in self._one_pass(stream, 0):
                done += 1
                yield window
        except CountError:
            stream = stream.recounted()
            try:
                yield from self._one_pass(stream, done)
            except CountError as error:
                raise VideoError(self._path, "damaged: it decodes to other frames each time") from error
            except SpanError as error:  # nothing is left
                raise VideoError(self._path, stream.damage or str(error)) from error
        if stream.damage:
            raise VideoError(self._path, stream.damage)

    def _one_pass(self, stream: FrameStream, first: int) -> Iterator[tuple[Span, Frames]]:
        """Yield the windows from the ``first`` one on."""
        waiting: deque[_Window] = deque()
        for frame in stream.frames(self._wanted(stream.times, first, waiting)):
            resized: dict[Size, Frames] = {}
            for window in waiting:
                window.take(frame, resized, self._shrink)
            while waiting and not waiting[0].missing:
                yield waiting.popleft().finished()

    def _wanted(self, times: Times, first: int, waiting: deque[_Window]) -> Iterator[int]:
        """Yield the numbers of the wanted frames, each once, ascending; open each window before its first frame."""
        pending: set[int] = set()
        starts, end = self._tiling.starts(times)
        for start in starts.after(first):
            span = Span(float(start), float(min(start + self._tiling.window, end)))
            try:
                numbers = times.numbers(span)
            except SpanError:  # no frame is shown in it
                continue
            ready = sorted(number for number in pending if number < numbers.start)
            yield from ready
            pending.difference_update(ready)
            wanted = numbers.start + self._views(len(numbers))
            waiting.append(_Window(span, wanted, set(wanted.ravel().tolist())))
            pending |= waiting[-1].missing
        yield from sorted(pending)

    def _check_memory(self, times: Times, count: int) -> None:
        """Refuse windows of which so many overlap that their frames would fill the memory.

        Raises:
            SpanError: they do.
        """
        per_window = max(1, int(self._tiling.window * times.count / times.seconds))
        chosen = self._views(per_window).size
        overlapping = min(math.ceil(self._tiling.window / self._tiling.stride), count)
        if min(per_window, overlapping * chosen) > max(MOST_KEPT, chosen):
            raise SpanError(
                f"{overlapping} windows overlap, with {chosen} frames each: over the limit of {MOST_KEPT} frames in "
                "memory; choose a longer stride or a shorter window"
            )


@dataclass(slots=True)
class _Window:
    """A window whose frames are coming in: ``wanted`` are their numbers ``[V, T]``."""

    span: Span
    wanted: NDArray[np.int64]
    missing: set[int]
    size: Size | None = None
    frames: dict[int, Frames] = field(default_factory=dict)

    def take(self, frame: StreamedFrame, resized: dict[Size, Frames], shrink: Transform) -> None:
        """Keep a frame if it is wanted; windows share what is ``resized``, unless the video changes its size."""
        if frame.number not in self.missing:
            return
        self.missing.remove(frame.number)
        self.size = self.size or frame.size  # as pyav_cuts: that of the part's first wanted frame
        if self.size not in resized:
            upright = np.ascontiguousarray(frame.draw(self.size))  # turned ones have negative strides
            resized[self.size] = shrink(upright[None])[0]
        self.frames[frame.number] = resized[self.size]

    def finished(self) -> tuple[Span, Frames]:
        views, count = self.wanted.shape
        stacked = np.stack([self.frames[number] for number in self.wanted.ravel().tolist()])
        return self.span, stacked.reshape(views, count, *stacked.shape[1:])


@dataclass(frozen=True, slots=True)
class _Tiling:
    """Where windows begin: exact seconds, so that the hundred-thousandth is where it should be."""

    window: Fraction
    stride: Fraction
    span: Span

    @classmethod
    def of(cls, window: float, stride: float, span: Span | None) -> _Tiling:
        for name, value in (("window", window), ("stride", stride)):
            if not math.isfinite(value) or round(value, MICRO) <= 0:
                raise UserError(f"{name}={value:g}: choose a number of seconds above 0")
        if stride > window:
            raise UserError(
                f"stride={stride:g} is longer than window={window:g}: the seconds between two windows would not be "
                f"looked at; choose a stride of at most {window:g}"
            )
        if span is not None and span.unit != "seconds":
            raise UserError(f"{span.text}: windows are cut from a part in seconds, not in frames")
        return cls(exact(window), exact(stride), span or Span(0.0))

    def starts(self, times: Times) -> tuple[_Starts, Fraction]:
        """Return when windows begin, and when the last one ends.

        Raises:
            SpanError: the video has no such part, or is shorter than a window; a window is shorter than a frame.
        """
        times.numbers(self.span)  # the part is there
        seconds = Fraction(math.ceil(times.seconds * 10**MICRO), 10**MICRO)
        first = exact(self.span.start)
        last = seconds if math.isinf(self.span.end) else min(seconds, exact(self.span.end))
        frame = times.seconds / times.count
        for name, value in (("window", self.window), ("stride", self.stride)):
            if value < frame:
                raise SpanError(
                    f"a {name} of {seconds_text(float(value))} s is shorter than a frame, which is shown for "
                    f"{seconds_text(round(float(frame), 3))} s; choose a longer one"
                )
        if self.window > last - first + frame + SLACK:
            part = "video" if self.span == Span(0.0) else "part of the video"
            raise SpanError(
                f"a window of {seconds_text(float(self.window))} s is longer than the {part}, which has "
                f"{seconds_text(round(float(last - first), 3))} s; choose a shorter window, or leave it out"
            )
        starts = _Starts.between(first, last, self.window, self.stride)
        if starts.last is not None and not times.shows(starts.covered, last):
            starts = replace(starts, last=None)
        return starts, last


@dataclass(frozen=True, slots=True)
class _Starts:
    """Evenly spaced starts of ``whole`` windows, and that of the one that ends with the video, if there is one."""

    first: Fraction
    window: Fraction
    stride: Fraction
    whole: int
    last: Fraction | None

    @classmethod
    def between(cls, first: Fraction, last: Fraction, window: Fraction, stride: Fraction) -> _Starts:
        """Return when windows over ``first`` to ``last`` begin; what is shorter than a window has one."""
        whole = max(0, math.floor((last - first - window) / stride)) + 1
        starts = cls(first, window, stride, whole, None)
        return replace(starts, last=max(first, last - window)) if starts.covered < last else starts

    @property
    def covered(self) -> Fraction:
        """Where the last of the ``whole`` windows ends."""
        return self.first + (self.whole - 1) * self.stride + self.window

    def __len__(self) -> int:
        return self.whole + (self.last is not None)

    def after(self, number: int) -> Iterator[Fraction]:
        """Yield the starts but the first ``number``."""
        for index in range(number, self.whole):
            yield self.first + index * self.stride
        if self.last is not None and number <= self.whole:
            yield self.last
