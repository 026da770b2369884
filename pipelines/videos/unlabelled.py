"""Read lists of videos that need no labels: a path on each line, or a CSV with a column of paths and perhaps times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.videos.list_entries import PATH_COLUMNS, form_of, table_rows
from pipelines.videos.text_file import read_text
from pipelines.videos.time_columns import WHOLE, Cut, Times, read_cuts, time_columns
from pipelines.videos.video_files import VIDEO_SUFFIXES, suffix_of
from vlmodels.errors import UserError
from vlmodels.span import split_name

LIST_SUFFIXES = (".txt", ".csv", ".tsv")
"""Suffixes of lists, which ``.gz`` may follow."""
__all__ = ["Times", "UnlabelledLine", "is_unlabelled_list", "read_unlabelled"]

_PATHS = (*PATH_COLUMNS, "uri", "url", "filename", "file_name")
_LABELLED = re.compile(r"(.*\S)\s+\d+")


@dataclass(frozen=True, slots=True)
class UnlabelledLine:
    """A video of a list.

    Attributes:
        path: as written.
        cut: the part of the video, or what is wrong with its times.
        fps: frames per second of a folder of pictures; 0 if the list does not say.
    """

    path: str
    cut: Cut = WHOLE
    fps: float = 0.0


def is_unlabelled_list(name: str) -> bool:
    """Return whether a file is a list by its name."""
    return name.lower().removesuffix(".gz").endswith(LIST_SUFFIXES)


def read_unlabelled(path: Path, times: Times | None = None) -> list[UnlabelledLine]:
    """Return the videos of a list in its order; labels that it may have are passed over.

    Args:
        path: the list.
        times: how to read columns of times that could mean two things.

    Raises:
        UserError: it cannot be read, is no text or CSV, has no column of paths, times of an uncertain unit, no videos.
    """
    text = read_text(path)
    kind, mark = form_of(path, text)
    first = text.partition("\n")[0].strip().strip('"').strip().lower()
    if (kind in {"csv", "tsv"} and mark) or first in _PATHS:
        lines = list(_of_table(path, text, mark or ",", times))
    else:
        lines = [_line(line) for line in _of_lines(text)]
    if not lines:
        raise UserError(f"{path}: no videos in this list")
    return lines


def _line(written: str) -> UnlabelledLine:
    name, span = split_name(written)
    return UnlabelledLine(name, Cut(span) if span else WHOLE)


def _of_lines(text: str) -> Iterator[str]:
    """Yield the paths; numbers behind them are labels if no line is a video's path with its number."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    labelled = [_LABELLED.fullmatch(line) for line in lines]
    if lines and all(match and suffix_of(match[1]) in VIDEO_SUFFIXES for match in labelled):
        yield from (match[1] for match in labelled if match)
    else:
        yield from lines


def _of_table(path: Path, text: str, mark: str, times: Times | None) -> Iterator[UnlabelledLine]:
    rows = table_rows(path, text, mark)
    written = [cell.strip() for cell in next(rows, ("", []))[1]]
    header = [name.lower() for name in written]
    video = next((name for name in _PATHS if name in header), "")
    if not video:
        raise UserError(
            f"{path}:1: no column of videos (video, path or file) among '{','.join(header)}'; add one, or give a "
            "list with a path on each line (.txt)"
        )
    if twice := next((name for name in header if name and header.count(name) > 1), ""):
        raise UserError(f"{path}:1: two columns are called '{twice}'; rename or remove one")
    columns = None if times == "ignore" else time_columns(written, f"{path}:1")
    table = [_cells(where, header, cells) for where, cells in rows]
    cuts: Sequence[Cut] = [WHOLE] * len(table)
    if columns:
        start, end = header.index(columns.start.lower()), header.index(columns.end.lower())
        cuts, _ = read_cuts(columns, [(cells[start], cells[end]) for cells in table], times, f"{path}:1")
    at, rate = header.index(video), header.index("fps") if "fps" in header else None
    for number, (cells, cut) in enumerate(zip(table, cuts, strict=True), start=1):
        if not cells[at]:
            raise UserError(f"{path}: row {number} has no video")
        line = _line(cells[at])
        fps = 0.0 if rate is None else _rate(cells[rate], f"{path}: row {number}")
        yield UnlabelledLine(line.path, line.cut if cut is WHOLE else cut, fps)


def _cells(where: str, header: Sequence[str], cells: Sequence[str]) -> list[str]:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} cells where the header has {len(header)}; quote names that hold commas")
    return [cell.strip() for cell in cells]


def _rate(text: str, where: str) -> float:
    try:
        rate = float(text or 0)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1e6:
        raise UserError(f"{where}: '{text}' is no number of frames per second")
    return rate
