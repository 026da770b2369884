"""The page of a timeline: the segments over time, a strip of pictures, and a table; one file without a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.prediction.segments import Segment
from pipelines.prediction.strip import Strip
from pipelines.prediction.timeline import Timeline
from pipelines.reports.page import write_page

TEMPLATE = Path(__file__).parent / "templates" / "timeline.html.j2"
MOST_SEGMENTS = 1000
"""Segments that the page draws: the longest; all are in the CSV."""
_PICTURE_REM = 6.5
"""Width of a picture on the strip, in rem; the axis is as long as the strip."""
_COLOURS = 10
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds between two marks of the axis."""


def write_timeline(path: Path, timeline: Timeline, strip: Strip, model: str) -> Path:
    """Write the page of a timeline; the JSON and CSV of the same name are expected beside it."""
    segments = timeline.segments
    if len(segments) > MOST_SEGMENTS:
        longest = sorted(range(len(segments)), key=lambda number: segments[number].start - segments[number].end)
        segments = tuple(segments[number] for number in sorted(longest[:MOST_SEGMENTS]))
    labels = _labels(timeline.segments)
    looks = {key: _look(number, key[1]) for number, key in enumerate(labels)}
    length = timeline.length - timeline.start
    strip_rem = _PICTURE_REM * length / strip.gap
    rows = [_row(timeline, segment, looks[segment.label, segment.none]) for segment in segments]
    seconds = sum(labels.values())
    return write_page(
        path,
        TEMPLATE,
        title=_printable(Path(timeline.video).name or timeline.video),
        width=76,
        video=_printable(timeline.video),
        model=_printable(model),
        asked=timeline.asked,
        start=clock(timeline.start),
        end=clock(timeline.end),
        length=clock(timeline.length),
        stopped=timeline.stopped,
        unread=100 * (timeline.length - timeline.end) / length,
        windows=len(timeline.windows),
        count=len(timeline.segments),
        rows=rows,
        labels=[
            {"label": label, "look": looks[label, none], "share": 100 * labels[label, none] / seconds,
             "time": clock(labels[label, none])}
            for label, none in labels
        ],
        ticks=_ticks(timeline.start, timeline.length, strip_rem),
        strip_rem=strip_rem,
        pictures=[
            {"left": 100 * (one.seconds - timeline.start) / length, "time": clock(one.seconds), "uri": one.uri}
            for one in strip.pictures
        ],
        picture_rem=_PICTURE_REM,
        stem=path.stem,
    )  # fmt: skip


def clock(seconds: float) -> str:
    """Return seconds as people read them: 0:07.5, 1:02:03.5."""
    tenths = round(10 * seconds)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600
    return f"{hours}:{minutes:02d}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


def _labels(segments: Sequence[Segment]) -> dict[tuple[str, bool], float]:
    """Return the seconds of each label, the most frequent first, by its name and whether it is none of the classes."""
    seconds: defaultdict[tuple[str, bool], float] = defaultdict(float)
    for segment in segments:
        seconds[segment.label, segment.none] += segment.end - segment.start
    return dict(sorted(seconds.items(), key=lambda entry: (-entry[1], entry[0])))


def _look(number: int, none: bool) -> str:
    """Return the CSS classes of the label that is the ``number``-th by its seconds."""
    return "none" if none else f"c{number % _COLOURS} p{number // _COLOURS % 3}"


def _row(timeline: Timeline, segment: Segment, look: str) -> dict[str, Any]:
    length = timeline.length - timeline.start
    return {
        "label": segment.label,
        "look": look,
        "left": 100 * (segment.start - timeline.start) / length,
        "width": 100 * (segment.end - segment.start) / length,
        "from": clock(segment.start),
        "to": clock(segment.end),
        "time": clock(segment.end - segment.start),
        "percent": 100 * segment.probability,
    }


def _ticks(start: float, end: float, width_rem: float) -> list[dict[str, Any]]:
    """Return marks at round seconds, not closer to each other than a label is wide."""
    most = max(2.0, min(200.0, width_rem / 7))
    step = next((step for step in _STEPS if (end - start) / step <= most), _STEPS[-1])
    first = -int(-start / step // 1)
    marks = (step * number for number in range(first, int(end / step) + 1))
    return [
        {"left": 100 * (mark - start) / (end - start), "text": _mark(mark, step)} for mark in marks if mark >= start
    ]


def _mark(seconds: float, step: float) -> str:
    text = clock(seconds)
    return text if step < 1 else text.removesuffix(".0")


def _printable(text: str) -> str:
    """Return text with a question mark for each byte of a name that is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")
