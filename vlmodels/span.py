"""A part of a video: from a start to an end, in seconds of the video or in frames; and how it is written.

Its text stands behind the name of the file: ``wave/v1.mp4 [3.0-8.0 s]``, ``wave/v2 [frames 30-90]``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from vlmodels.errors import UserError

Unit = Literal["seconds", "frames"]

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)
_TAG = re.compile(r"(.+) \[(?:(\d+\.\d+)-(\d+\.\d+) s|frames (\d+)-(\d+))\]", re.DOTALL)
MICRO = 6
"""Digits after the point of seconds."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The frames of a video from ``start`` to before ``end``.

    Attributes:
        start: seconds after the video's start, as players count them, or the number of a frame, from 0.
        end: the same, excluded; infinite for the rest of the video.
        unit: what the two count.

    Raises:
        UserError: a negative start, an end that is not after it, or no number.
    """

    start: float
    end: float = math.inf
    unit: Unit = "seconds"

    def __post_init__(self) -> None:
        if math.isnan(self.start) or math.isnan(self.end) or math.isinf(self.start):
            raise UserError(f"from {self.start:g} to {self.end:g}: not a number")
        if self.start < 0:
            raise UserError(f"its start {self.start:g} is negative")
        if self.end <= self.start:
            raise UserError(f"its end {self.end:g} is not after its start {self.start:g}")

    @property
    def text(self) -> str:
        """The span as text, without brackets: ``3.0-8.0 s``, ``frames 30-90``."""
        if self.unit == "frames":
            return f"frames {self.start:.0f}-{_end_text(f'{self.end:.0f}', self.end)}"
        return f"{seconds_text(self.start)}-{_end_text(seconds_text(self.end), self.end)} s"

    def after(self, name: str) -> str:
        """Return a file's name with this span behind it."""
        return f"{name} [{self.text}]"


@dataclass(frozen=True, slots=True)
class Cuts:
    """What to take from a file: parts of it, or with None all of it.

    Attributes:
        spans: the parts.
        fps: frames per second of a frame folder; 0 if unknown.
    """

    spans: tuple[Span | None, ...]
    fps: float = 0.0


def seconds_text(seconds: float) -> str:
    """Return seconds with at least one digit after the point, and at most six: ``3.0``."""
    whole, _, rest = f"{seconds:.{MICRO}f}".partition(".")
    return f"{whole}.{rest.rstrip('0') or '0'}"


def _end_text(text: str, end: float) -> str:
    return "end" if math.isinf(end) else text


def split_name(name: str) -> tuple[str, Span | None]:
    """Return a name without the span behind it, and the span; None if there is none, or an impossible one."""
    if not name.endswith("]"):  # nearly all names
        return name, None
    match = _TAG.fullmatch(name)
    if match is None:
        return name, None
    try:
        if match[4] is not None:
            return match[1], Span(float(match[4]), float(match[5]), "frames")
        return match[1], Span(float(match[2]), float(match[3]))
    except UserError:
        return name, None


def seconds_of(text: str) -> float:
    """Return the seconds of a text: ``3.5``, ``3.5 s``, ``01:02:03.5`` or ``02:03.5`` (minutes and seconds).

    Raises:
        UserError: it is neither.
    """
    plain = text.strip().lower()
    if clock := _CLOCK.fullmatch(plain):
        hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3].replace(",", "."))
        if minutes < 60 and seconds < 60:
            return round(3600 * hours + 60 * minutes + seconds, MICRO)
    for unit in ("seconds", "sec", "s"):
        if plain.endswith(unit):
            plain = plain.removesuffix(unit).strip()
            break
    if re.fullmatch(r"\d+,\d{1,2}", plain):  # a decimal comma; with three digits it may be one of thousands
        plain = plain.replace(",", ".")
    if _NUMBER.fullmatch(plain) and math.isfinite(value := float(plain)):
        return round(value, MICRO)
    raise UserError(f"'{text}' is no time; write seconds (75.5) or hours:minutes:seconds (00:01:15.5)")


def frame_of(text: str) -> int:
    """Return the frame number that a text holds.

    Raises:
        UserError: it holds none.
    """
    plain = text.strip()
    if _NUMBER.fullmatch(plain) and math.isfinite(value := float(plain)) and value == int(value):
        return int(value)
    raise UserError(f"'{text}' is no frame number")


def is_clock(text: str) -> bool:
    """Return whether a text is hours, minutes and seconds, or minutes and seconds."""
    return _CLOCK.fullmatch(text.strip()) is not None
