"""Read the lines of a list: ``path label`` lines, CSV or JSON, with the part of the video that each names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.videos.text_file import read_text
from pipelines.videos.time_columns import WHOLE, Cut, Times, read_cuts, time_columns
from pipelines.videos.video_files import VIDEO_SUFFIXES, suffix_of
from vlmodels.errors import UserError, shortened
from vlmodels.span import Span, split_name

PATH_COLUMNS = ("path", "video", "file", "youtube_id", "video_id")
LABEL_COLUMNS = ("label", "class")
COUNT_COLUMNS = ("n_frames", "num_frames", "total_frames")
OTHER_COLUMNS = ("group", "split", "fps")
"""Columns that a list may have besides those of path and label, times and numbers of frames."""
LONGEST_LABEL = 300
"""Characters of a class name: what is longer is a description, or a quote that was left open."""
PAIRS = ("segment", "timestamps", "interval", "span")
"""Keys of an entry in JSON that may hold start and end together."""


@dataclass(frozen=True, slots=True)
class ListLine:
    """One video of a list.

    Attributes:
        path: as written.
        label: index of its class.
        where: its place, ``file:line``.
        group: source video, if the list has a column for it.
        split: train, val or test, if the list has a column for it.
        cut: the part of the video.
        n_frames: pictures of the frame folder, as the list says; 0 if it does not.
        fps: frames per second of a frame folder, as the list says; 0 if it does not.
    """

    path: str
    label: int
    where: str
    group: str = ""
    split: str = ""
    cut: Cut = WHOLE
    n_frames: int = 0
    fps: float = 0.0

    @property
    def name(self) -> str:
        """The path as written, with the part of the video behind it."""
        return self.cut.after(self.path)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list as it is written; ``label_at`` is the place of its label, with the column."""

    path: str
    label: str
    where: str
    label_at: str
    group: str = ""
    split: str = ""
    cut: Cut = WHOLE
    n_frames: str = ""
    fps: str = ""

    def line(self, label: int) -> ListLine:
        """Return the line with its label as a number.

        Raises:
            UserError: frames, or frames per second, that are no number.
        """
        if not self.n_frames and not self.fps:  # nearly all lines
            return ListLine(self.path, label, self.where, self.group, self.split, self.cut)
        n_frames = int(_positive(self.n_frames or "0", "number of frames", self.where))
        fps = _positive(self.fps or "0", "frames per second", self.where)
        return ListLine(self.path, label, self.where, self.group, self.split, self.cut, n_frames, fps)


def read_entries(path: Path, times: Times | None = None) -> Iterator[Entry]:
    """Yield the lines of a list.

    Raises:
        UserError: see ``list_files.read_list``.
    """
    text = read_text(path)
    kind, mark = form_of(path, text)
    if kind == "json":
        entries = _json_entries(path, text, times)
    elif kind == "csv" and mark:
        entries = _csv_entries(path, text, mark, times)
    else:  # some call 'path label' lines .csv
        entries = _text_entries(path, text)
    empty = True
    for entry in entries:
        empty = False
        if not entry.path:
            raise UserError(f"{entry.where}: a video without a path")
        if not entry.label:
            raise UserError(f"{entry.label_at}: no label for '{entry.path}'")
        if len(entry.label) > LONGEST_LABEL and not entry.label.isdecimal():
            raise UserError(f"{entry.label_at}: {too_long(entry.label)}")
        if entry.path[-1] == "]" and (found := split_name(entry.path))[1] is not None:
            entry = replace(entry, path=found[0], cut=Cut(found[1]))  # noqa: PLW2901 - the same line
        yield entry
    if empty:
        raise UserError(f"{path}: no videos in this list")


def too_long(label: str) -> str:
    """Return the message that a class name is a text."""
    return f"a class name of {len(label)} characters ('{shortened(label, 60)}'); at most {LONGEST_LABEL} are allowed"


def form_of(path: Path, text: str) -> tuple[str, str | None]:
    """Return the last suffix except ``.gz``, and the mark that separates the cells of the first line."""
    mark = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), None)
    return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1], mark


def _text_entries(path: Path, text: str) -> Iterator[Entry]:
    name = str(path)
    lines = text.split("\n")
    numbers = _numbers_before_labels(lines)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        end = len(line.rstrip())
        video, *label = line.strip().rsplit(None, 1)
        column = end - len(label[0]) + 1 if label else end + 1
        if not label or not label[0].isdecimal():
            raise UserError(f"{where}:{column}: expected 'path label' with a number as label, found '{line.strip()}'")
        at = f"{where}:{column}"
        if numbers:
            yield _frames_entry(*video.rsplit(None, numbers), label=label[0], where=where, label_at=at)
        else:
            yield Entry(video, label[0], where, at)


def _numbers_before_labels(lines: Sequence[str]) -> int:
    """Return how many numbers, at most two, all lines have between path and label."""
    least = 2
    for words in filter(None, map(str.split, lines)):
        if len(words) < 3 or not words[-2].isdecimal():
            return 0
        if len(words) < 4 or not words[-3].isdecimal():
            least = 1
    return least


def _frames_entry(video: str, *numbers: str, label: str, where: str, label_at: str) -> Entry:
    """Return the line of a frame folder: its number of frames, perhaps after the first of them.

    Raises:
        UserError: it names a video file, whose numbers may be labels as well.
    """
    if suffix_of(video) in VIDEO_SUFFIXES:
        raise UserError(
            f"{where}: more than one number behind '{video}': lists of video files are 'path label' lines; for parts "
            "of them write a CSV with start_frame,end_frame"
        )
    if len(numbers) == 1:
        return Entry(video, label, where, label_at, n_frames=numbers[0])
    start, count = map(whole_number, numbers)
    if not count:
        return Entry(video, label, where, label_at, cut=Cut(problem="it has no frames", text=f"frames {start}+0"))
    return Entry(video, label, where, label_at, cut=Cut(Span(start, start + count, "frames")))


def _csv_entries(path: Path, text: str, delimiter: str, times: Times | None) -> Iterator[Entry]:
    rows = table_rows(path, text, delimiter)
    written = [cell.strip() for cell in next(rows, ("", []))[1]]
    header = [name.lower() for name in written]
    video = next((name for name in PATH_COLUMNS if name in header), "")
    label = next((name for name in LABEL_COLUMNS if name in header), "")
    if not video or not label:
        raise UserError(
            f"{path}:1: a list in CSV starts with a header that has the columns path and label (group and split are "
            f"optional), not '{','.join(header)}'"
        )
    if twice := next((name for name in header if name and header.count(name) > 1), ""):
        raise UserError(f"{path}:1: two columns are called '{twice}'; rename or remove one")
    count = next((name for name in COUNT_COLUMNS if name in header), "")
    columns = _Columns(video, label, count, f", column {header.index(label) + 1} ({label})")
    table = ((where, _row(where, header, cells)) for where, cells in rows)
    for where, row, cut in _with_cuts(table, written, times, f"{path}:1"):
        yield columns.entry(row, where, cut)


def _row(where: str, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} cells where the header has {len(header)}; quote names that hold commas")
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _with_cuts(
    rows: Iterable[tuple[str, dict[str, str]]], names: Sequence[str], times: Times | None, where: str
) -> Iterator[tuple[str, dict[str, str], Cut]]:
    """Yield the rows, each with the part of the video that its cells of times say."""
    columns = None if times == "ignore" else time_columns(names, where)
    if columns is None:
        yield from ((at, row, WHOLE) for at, row in rows)
        return
    table = list(rows)  # all cells together show the unit
    start, end = columns.start.lower(), columns.end.lower()
    cuts, _ = read_cuts(columns, [(row.get(start, ""), row.get(end, "")) for _, row in table], times, where)
    yield from ((at, row, cut) for (at, row), cut in zip(table, cuts, strict=True))


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of path, label and number of frames that a list has ("" for none), and what names a label's place."""

    video: str
    label: str
    count: str
    label_at: str

    def entry(self, row: Mapping[str, str], where: str, cut: Cut) -> Entry:
        """Return a row as an entry."""
        n_frames = row.get(self.count, "") if self.count else ""
        get = row.get
        at = where + self.label_at
        path, label = get(self.video, ""), get(self.label, "")
        return Entry(path, label, where, at, get("group", ""), get("split", ""), cut, n_frames, get("fps", ""))


def table_rows(path: Path, text: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of the first row of a CSV, and then of each row that is not empty."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        where = f"{path}:{rows.line_num + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{where}: not CSV ({error}); is a quote left open or not doubled?") from error
        if cells is None:
            return
        if rows.line_num == 1 or any(cell.strip() for cell in cells):
            yield where, cells


def _json_entries(path: Path, text: str, times: Times | None) -> Iterator[Entry]:
    content = parse_json(path, text)
    if isinstance(content, dict):
        content = [{"path": video, "label": label} for video, label in content.items()]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise UserError(f'{path}: a list in JSON is [{{"path": ..., "label": ...}}, ...] or {{path: label}}')
    content = [with_ends(item) for item in content]
    names = list(dict.fromkeys(str(name) for item in content for name in item))
    rows = ((f"{path}, entry {number}", _texts(item)) for number, item in enumerate(content, start=1))
    for where, row, cut in _with_cuts(rows, names, times, str(path)):
        video = next((name for name in PATH_COLUMNS if name in row), PATH_COLUMNS[0])
        label = next((name for name in LABEL_COLUMNS if name in row), LABEL_COLUMNS[0])
        count = next((name for name in COUNT_COLUMNS if name in row), "")
        yield _Columns(video, label, count, f" ({label})").entry(row, where, cut)


def with_ends(item: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with the ends of its ``segment: [3.0, 8.5]`` (ActivityNet), if it has one, as start and end."""
    for name in PAIRS:
        pair = item.get(name)
        if isinstance(pair, list) and len(pair) == 2 and not any(isinstance(end, (list, dict)) for end in pair):
            return {key: value for key, value in item.items() if key != name} | {"start": pair[0], "end": pair[1]}
    return item


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).lower(): "" if value is None else str(value).strip() for name, value in item.items()}


def parse_json(path: Path, text: str) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: it is not JSON (line and column).
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{path}: JSON that is no list of videos ({error})") from error


def whole_number(label: str) -> int:
    """Return a label as a number; of thousands of digits, which Python refuses, the first ones say enough."""
    return int(label[:18])


def _positive(text: str, what: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise UserError(f"{where}: '{text}' is no {what}")
    return value
