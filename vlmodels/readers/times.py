"""When the frames of a video are shown: from the times of its packets, without decoding, or else by its frame rate."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vlmodels.readers.clip import Header
from vlmodels.readers.container import open_video
from vlmodels.span import Span, seconds_text

SLACK = Fraction(1, 10)
"""Seconds by which a span may end after the last frame's end, besides one frame: ends are often rounded up."""


class SpanError(Exception):
    """A span that the video does not have; the text says why."""


@dataclass(frozen=True, slots=True)
class Times:
    """When each frame of a video is shown, in order.

    Attributes:
        shown: of each frame, in units of ``base``; empty if that is unknown.
        count: number of frames.
        base: seconds of a unit.
        offset: where the video starts, in units: some files begin at another time than 0.
        end: where the last frame ends, in units.
        keys: those of ``shown`` from which decoding may begin.
        stamped: whether packets and frames carry these times.
    """

    shown: Sequence[int]
    count: int
    base: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    end: int = 0
    keys: Sequence[int] = field(default=(), repr=False)
    stamped: bool = False

    @classmethod
    def by_rate(cls, count: int, fps: float) -> Times:
        """Return the times of frames that follow each other evenly; unknown where ``fps`` is 0."""
        if not fps:
            return cls((), count)
        return cls(range(count), count, 1 / Fraction(fps).limit_denominator(100_000), end=count)

    @property
    def seconds(self) -> Fraction:
        """When the last frame ends, in seconds of the video.

        Raises:
            SpanError: the times of the frames are unknown.
        """
        if not self.shown:
            raise SpanError("its frames per second are unknown: to cut it by seconds, say them with --fps")
        return (self.end - self.offset) * self.base

    def numbers(self, span: Span) -> range:
        """Return the numbers of the frames that are shown in a span.

        Raises:
            SpanError: it ends after the video, or holds no frame; the times of the frames are unknown.
        """
        if span.unit == "frames":
            return self._by_number(span)
        ends = self.seconds
        frame = ends / self.count
        if not math.isinf(span.end) and exact(span.end) > ends + frame + SLACK:
            raise SpanError(_too_long(span.text, f"{seconds_text(round(float(ends), 3))} s"))
        last = self.count if math.isinf(span.end) else self._first_at(exact(span.end))
        found = range(self._first_at(exact(span.start)), last)
        if not found:
            raise SpanError(
                f"no frame between its times: {span.text}, the video ends at {seconds_text(round(float(ends), 3))} s"
            )
        return found

    def _by_number(self, span: Span) -> range:
        if span.start >= self.count or (not math.isinf(span.end) and span.end > self.count):
            raise SpanError(_too_long(span.text, f"frame {self.count} (counted from 0)"))
        return range(int(span.start), self.count if math.isinf(span.end) else int(span.end))

    def shows(self, start: Fraction, end: Fraction) -> bool:
        """Return whether a frame is shown from a second on, before another."""
        return self._first_at(start) < self._first_at(end)

    def _first_at(self, seconds: Fraction) -> int:
        """Return the number of the first frame that is shown at this time or later."""
        return bisect.bisect_left(self.shown, math.ceil(seconds / self.base + self.offset))


def exact(seconds: float) -> Fraction:
    """Return seconds as they are written: 3.1 is no binary fraction, but a frame may be shown at exactly that time."""
    return Fraction(seconds_text(seconds))


def _too_long(span: str, end: str) -> str:
    remedy = "if the file is cut already, leave the times out"
    return f"times after the video's end: they are {span}, the video ends at {end}; {remedy}"


def read_times(path: Path, header: Header) -> Times:
    """Return the times of a file's frames, by those of its packets; by the rate where packets only count frames.

    Raises:
        av.FFmpegError: the file cannot be opened.
    """
    with open_video(path) as container:
        stream = container.streams[header.stream]
        counted = container.format.name == "avi" or header.dropped
        packets = [] if counted else _packets(container, stream)
        starts = sorted(packet[0] for packet in packets)
        if len(starts) != header.shown or len(set(starts)) < len(starts) or not starts:
            return Times.by_rate(header.shown, header.fps)
        base = Fraction(stream.time_base)
        began = _began(container)
    durations = {start: duration for start, duration, _ in packets}
    last = durations[starts[-1]] or (starts[-1] - starts[0]) // max(1, len(starts) - 1)
    keys = sorted(start for start, _, is_key in packets if is_key)
    return Times(starts, len(starts), base, began / base, starts[-1] + last, keys, stamped=True)


def _began(container: Any) -> Fraction:
    """Return the second at which a file starts, exactly: FFmpeg rounds it to a microsecond, perhaps up."""
    rounded = Fraction(max(0, container.start_time or 0), av.time_base)
    known = [stream for stream in container.streams if stream.start_time is not None and stream.time_base]
    starts = (Fraction(stream.start_time) * stream.time_base for stream in known)
    near = [start for start in starts if abs(start - rounded) * av.time_base <= 1]
    return min(near, key=lambda start: abs(start - rounded), default=rounded)


def _packets(container: Any, stream: Any) -> list[tuple[int, int, bool]]:
    """Return time, duration and whether it is a key of each packet that is shown; none if one has no time."""
    found = []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return []
                found.append((packet.pts, packet.duration or 0, packet.is_keyframe))
    except av.FFmpegError:
        pass  # the file ends inside a packet
    return found


def decoded_times(path: Path, header: Header, threads: int) -> tuple[Times, str]:
    """Return the times of the frames that a file decodes to, where these are not its packets; and why decoding stops.

    The reason is "" where it ends with the file.

    Raises:
        av.FFmpegError: the file cannot be opened.
    """
    from vlmodels.readers.pyav_reader import decode

    starts: list[int | None] = []
    with open_video(path) as container:
        stream = container.streams[header.stream]
        base = Fraction(stream.time_base)
        began = _began(container)
        counted = container.format.name == "avi"
    stopped = ""
    try:
        starts.extend(frame.pts for frame in decode(path, header, threads))  # those before an error stay
    except av.FFmpegError as error:
        stopped = error.strerror
    count = len(starts) + sum(header.dropped.values())
    known = [start for start in starts if start is not None]
    if counted or header.dropped or len(known) < len(starts) or known != sorted(set(known)):
        return Times.by_rate(count, header.fps), stopped
    last = (known[-1] - known[0]) // max(1, len(known) - 1) if known else 0
    return Times(known, len(known), base, began / base, (known[-1] if known else 0) + last), stopped
