"""The columns of a list that say which part of a video a row is: what their names mean, and what their cells hold.

``time_start,time_end`` (Kinetics), ``start_s,end_s``, ``start_timestamp,stop_timestamp`` (EPIC-Kitchens) and the like
are seconds or HH:MM:SS; ``start_frame,end_frame`` are frames, counted from 0, the end excluded. Plain ``start,end`` are
seconds if a cell shows it (``3.5``, ``00:00:03``); whole numbers may be either, and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmodels.errors import UserError
from vlmodels.span import Span, Unit, frame_of, is_clock, seconds_of

Times = Literal["seconds", "frames", "ignore"]
TIMES: Mapping[Times, str] = {
    "seconds": "start and end are seconds",
    "frames": "they are frames, counted from 0, the end excluded",
    "ignore": "the files are cut already, or wanted whole",
}
"""How to read columns of times, for ``--help``."""

_START, _END = "(?:start|begin)", "(?:end|stop|finish)"
_LONG = "(?:times?|timestamps?|secs?|seconds?)"
_SECONDS = f"(?:_?{_LONG}|_[ts])"
_FRAMES = "_?(?:frames?|frame_?(?:no|id|index|idx|number))"
_MILLISECONDS = "_?(?:ms|msecs?|millis|milliseconds?)"
_AROUND = "(?:(?:segment|clip|action|event|annotation|temporal|video)_)?"
_NAMES: Mapping[str, tuple[str, ...]] = {
    "seconds": (f"{{}}{_SECONDS}{{{{1,2}}}}", f"(?:{_LONG}_?|t_){{}}{_SECONDS}?"),
    "milliseconds": (f"{{}}{_MILLISECONDS}", f"(?:time_?|t_){{}}{_MILLISECONDS}", f"{{}}_?time{_MILLISECONDS}"),
    "": ("{}",),
    "frames": (f"{{}}{_FRAMES}", "frames?_?{}"),
}
"""Forms of the columns' names, those that are taken first before others."""


@dataclass(frozen=True, slots=True)
class TimeColumns:
    """The names of a list's two columns of times, and what their names say of the unit: "" for nothing."""

    start: str
    end: str
    unit: str


@dataclass(frozen=True, slots=True)
class Cut:
    """What a row's cells say: a span, nothing (the whole video), or what is wrong with them.

    Attributes:
        span: the part of the video.
        problem: why there is none; "" if the row is right.
        text: the cells as they are written, for a row that is wrong.
    """

    span: Span | None = None
    problem: str = ""
    text: str = ""

    def after(self, name: str) -> str:
        """Return a video's name with the span, or the cells as they are, behind it."""
        if self.span is not None:
            return self.span.after(name)
        return f"{name} [{self.text}]" if self.problem else name


WHOLE = Cut()


def time_columns(names: Sequence[str], where: str) -> TimeColumns | None:
    """Return the columns of times among a header's names, as written; None if there are none.

    Raises:
        UserError: only one of the two, or several of a kind.
    """
    alone = ""
    for unit, forms in _NAMES.items():
        starts = [name for name in names if _is_named(name, _START, forms)]
        ends = [name for name in names if _is_named(name, _END, forms)]
        if len(starts) > 1 or len(ends) > 1:
            several = starts if len(starts) > 1 else ends
            raise UserError(f"{where}: two columns of one meaning, {' and '.join(several)}; remove one")
        if starts and ends:
            return TimeColumns(starts[0], ends[0], unit)
        alone = alone or next(iter([*starts, *ends]), "")
    if alone:
        raise UserError(
            f"{where}: column '{alone}' without the other end of the times; add it (start_s and end_s), or take the "
            "videos whole with --times ignore"
        )
    return None


def _is_named(name: str, which: str, forms: Iterable[str]) -> bool:
    words = "_".join(re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name)).lower()
    return any(re.fullmatch(_AROUND + form.format(which), words) for form in forms)


def read_cuts(
    columns: TimeColumns, cells: Sequence[tuple[str, str]], times: Times | None, where: str
) -> tuple[list[Cut], str]:
    """Return what each row's cells of start and end say, and the unit in words.

    Args:
        columns: the two columns.
        cells: of each row.
        times: the unit that the user names; None if the columns' names or cells say it.
        where: the place of the header.

    Raises:
        UserError: the unit is not certain.
    """
    unit = _unit(columns, cells, times, where)
    return [_cut(start, end, unit) for start, end in cells], unit


def _unit(columns: TimeColumns, cells: Sequence[tuple[str, str]], times: Times | None, where: str) -> str:
    if times is not None and times != columns.unit and not (times == "seconds" and columns.unit == "milliseconds"):
        return times
    if columns.unit:
        return columns.unit
    given = [cell for pair in cells for cell in pair if _is_given(cell)]
    has_gaps = len(given) < 2 * len(cells)
    if not given or any(is_clock(cell) or _shows_seconds(cell, has_gaps=has_gaps) for cell in given):
        return "seconds"
    raise UserError(
        f"{where}: columns {columns.start} and {columns.end} hold whole numbers, which may be seconds or frames: say "
        "--times seconds or --times frames, or call them start_s,end_s or start_frame,end_frame"
    )


def _shows_seconds(cell: str, *, has_gaps: bool) -> bool:
    """Return whether a number has a point; where cells are empty, pandas writes whole numbers as 30.0, too."""
    if re.fullmatch(r"\d+(?:\.\d+)?\s*s(?:ec)?", cell.strip().lower()):
        return True
    _, point, rest = cell.strip().replace(",", ".").partition(".")
    return bool(point) and rest.isdecimal() and (not has_gaps or bool(rest.strip("0")))


def _is_given(cell: str) -> bool:
    return cell.strip().lower() not in {"", "nan", "null", "none", "na", "n/a"}


def _cut(start: str, end: str, unit: str) -> Cut:
    if not _is_given(start) and not _is_given(end):
        return WHOLE
    text = f"{start.strip() or '?'}-{end.strip() or '?'}"
    if not _is_given(start) or not _is_given(end):
        return Cut(
            problem=f"wrong times: {'a start without an end' if _is_given(start) else 'an end without a start'}",
            text=text,
        )
    try:
        return Cut(_span(start, end, unit))
    except UserError as error:
        return Cut(problem=f"wrong times: {error}", text=text)


def _span(start: str, end: str, unit: str) -> Span:
    if unit == "frames":
        return Span(frame_of(start), frame_of(end), "frames")
    scale = 1000 if unit == "milliseconds" else 1
    kind: Unit = "seconds"
    return Span(round(seconds_of(start) / scale, 6), round(seconds_of(end) / scale, 6), kind)
