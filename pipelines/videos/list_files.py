"""Read the files that name videos and classes.

Lists hold ``path label`` lines, or are CSV or JSON; label files are CSV with the header ``id,name``. Published ones
have CRLF, no final newline, gzip, and names with spaces, commas, quotes, ``#`` and brackets.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.videos.text_file import read_text
from vlmodels.errors import UserError, nearest

PATH_COLUMNS = ("path", "video", "file")
LABEL_COLUMNS = ("label", "class")
OTHER_COLUMNS = ("group", "split")
"""Columns that a list may have besides those of path and label."""


@dataclass(frozen=True, slots=True)
class ListLine:
    """One video of a list.

    Attributes:
        path: as written.
        label: index of its class.
        where: its place, ``file:line``.
        group: source video, if the list has a column for it.
        split: train, val or test, if the list has a column for it.
    """

    path: str
    label: int
    where: str
    group: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a list as it is written; ``label_at`` is the place of its label, with the column."""

    path: str
    label: str
    where: str
    label_at: str
    group: str = ""
    split: str = ""


def read_labels(path: str | Path) -> list[str]:
    """Return the class names of a label CSV, in label order.

    Raises:
        UserError: no such file, no CSV, no header ``id,name``, ids that are not 0, 1, 2, ..., a name twice.
    """
    rows = _rows(Path(path), read_text(Path(path)))
    header = [cell.strip().lower() for cell in next(rows, ("", []))[1]]
    if "id" not in header or "name" not in header:
        raise UserError(f"{path}:1: a label file starts with the header 'id,name', not '{','.join(header)}'")
    id_column, name_column = header.index("id"), header.index("name")
    names: list[str] = []
    for where, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells where the header has {len(header)}; quote names that hold commas"
            )
        number, name = cells[id_column].strip(), cells[name_column].strip()
        if number != str(len(names)):
            raise UserError(f"{where}: id '{number}' where {len(names)} should follow; ids count 0, 1, 2, ...")
        if not name or name in names:
            raise UserError(f"{where}: class name '{name}' is {'there twice' if name else 'empty'}")
        names.append(name)
    if not names:
        raise UserError(f"{path}: no classes in it")
    return names


def read_list(path: str | Path, n_classes: int | None = None, classes: Sequence[str] | None = None) -> list[ListLine]:
    """Return the videos of a list, in its order.

    Lines are ``path label`` (the path may hold spaces). A ``.csv`` has a header with a path (or video, file) and a
    label (or class) column, a ``.json`` is ``[{"path": ..., "label": ...}, ...]`` or ``{path: label}``; there, a
    label may also be a name out of ``classes``.

    Raises:
        UserError: no such file, a video without a label, a label outside ``0 .. n_classes - 1`` (file, line and
            column), no videos.
    """
    path = Path(path)
    index = {name: number for number, name in enumerate(classes or ())}
    n_classes = n_classes if classes is None else len(classes)
    found = []
    for entry in _entries(path):
        label = _number(entry.label) if entry.label.isdecimal() else index.get(entry.label)
        if label is None:
            names = f" and no class of its label file{nearest(entry.label, index)}" if index else ""
            raise UserError(f"{entry.label_at}: label '{entry.label}' is not a number{names}")
        if n_classes is not None and label >= n_classes:
            raise UserError(
                f"{entry.label_at}: label {label} is out of range: the label file has {n_classes} classes "
                f"(0 to {n_classes - 1}); is it the label file of this list, and does the list count from 0?"
            )
        found.append(ListLine(entry.path, label, entry.where, entry.group, entry.split))
    return found


def read_videos(path: str | Path) -> tuple[list[str], list[ListLine]]:
    """Return the sorted class names, and the videos, of a CSV or JSON list that labels videos by class name.

    Raises:
        UserError: as :func:`read_list`; labels that are all numbers, which name no classes.
    """
    path = Path(path)
    entries = list(_entries(path))
    classes = sorted({entry.label for entry in entries})
    if all(name.isdecimal() for name in classes):
        raise UserError(f"{path}: its labels are numbers; --labels CSV says which classes they are")
    index = {name: number for number, name in enumerate(classes)}
    return classes, [ListLine(e.path, index[e.label], e.where, e.group, e.split) for e in entries]


def unused_columns(path: str | Path) -> tuple[str, ...]:
    """Return the columns of a CSV or JSON list, as written, that nothing here reads."""
    path = Path(path)
    text = read_text(path)
    kind, mark = _form(path, text)
    if kind == "json":
        content = _json(path, text)
        items = content if isinstance(content, list) else []
        names = dict.fromkeys(str(name) for item in items if isinstance(item, dict) for name in item)
    elif kind == "csv" and mark:
        names = dict.fromkeys(cell.strip() for cell in next(_rows(path, text, mark), ("", []))[1])
    else:
        return ()
    known = {name.lower() for name in names}
    used = {next((name for name in options if name in known), "") for options in (PATH_COLUMNS, LABEL_COLUMNS)}
    return tuple(name or "(unnamed)" for name in names if name.lower() not in used.union(OTHER_COLUMNS))


def list_stem(path: str | Path) -> str:
    """Return a list's name: that of its file without ``.gz`` and ``.txt``, ``.csv`` or ``.json``."""
    return Path(path).name.removesuffix(".gz").rsplit(".", 1)[0]


def is_table(path: str | Path) -> bool:
    """Return whether a list is CSV or JSON by its name, and so may label videos by class name."""
    return Path(path).name.lower().removesuffix(".gz").endswith((".csv", ".json"))


def is_list(path: str | Path) -> bool:
    """Return whether a file looks like a list of videos, maybe with mistakes, and not like labels, notes or settings.

    An unreadable file counts as a list: whoever reads it sees why it cannot be read.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError:
        return True
    return _looks_like_list(path, (stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=1024)  # a folder's files are asked for several times, and may be large
def _looks_like_list(path: Path, _: tuple[int, int]) -> bool:
    try:
        text = read_text(path)
        kind, mark = _form(path, text)
        content = _json(path, text) if kind == "json" else None
    except UserError:
        return True
    if kind == "json":
        if isinstance(content, dict):
            return bool(content) and all(isinstance(label, (str, int)) for label in content.values())
        return isinstance(content, list) and any(name in item for item in content[:1] for name in PATH_COLUMNS)
    if kind == "csv" and mark:
        header = {cell.strip().lower() for cell in text.partition("\n")[0].split(mark)}
        return not header.isdisjoint(PATH_COLUMNS + LABEL_COLUMNS)
    lines = [line.split() for line in text.split("\n") if line.strip()]
    return 2 * sum(len(words) > 1 and words[-1].isdecimal() for words in lines) >= len(lines)


def _form(path: Path, text: str) -> tuple[str, str | None]:
    """Return the last suffix except ``.gz``, and the mark that separates the cells of the first line."""
    mark = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), None)
    return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1], mark


def _entries(path: Path) -> Iterator[_Entry]:
    text = read_text(path)
    kind, mark = _form(path, text)
    if kind == "json":
        entries = _json_entries(path, text)
    elif kind == "csv" and mark:
        entries = _csv_entries(path, text, mark)
    else:  # some call 'path label' lines .csv
        entries = _text_entries(path, text)
    empty = True
    for entry in entries:
        empty = False
        if not entry.path:
            raise UserError(f"{entry.where}: a video without a path")
        if not entry.label:
            raise UserError(f"{entry.label_at}: no label for '{entry.path}'")
        yield entry
    if empty:
        raise UserError(f"{path}: no videos in this list")


def _text_entries(path: Path, text: str) -> Iterator[_Entry]:
    name = str(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        end = len(line.rstrip())
        video, *label = line.strip().rsplit(None, 1)
        column = end - len(label[0]) + 1 if label else end + 1
        if not label or not label[0].isdecimal():
            raise UserError(f"{where}:{column}: expected 'path label' with a number as label, found '{line.strip()}'")
        yield _Entry(video, label[0], where, f"{where}:{column}")


def _csv_entries(path: Path, text: str, delimiter: str) -> Iterator[_Entry]:
    rows = _rows(path, text, delimiter)
    header = [cell.strip().lower() for cell in next(rows, ("", []))[1]]
    video = next((name for name in PATH_COLUMNS if name in header), "")
    label = next((name for name in LABEL_COLUMNS if name in header), "")
    if not video or not label:
        raise UserError(
            f"{path}:1: a list in CSV starts with a header that has the columns path and label (group and split are "
            f"optional), not '{','.join(header)}'"
        )
    if twice := next((name for name in header if name and header.count(name) > 1), ""):
        raise UserError(f"{path}:1: two columns are called '{twice}'; rename or remove one")
    for where, cells in rows:
        if len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells where the header has {len(header)}; quote names that hold commas"
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        label_at = f"{where}, column {header.index(label) + 1} ({label})"
        yield _Entry(row[video], row[label], where, label_at, row.get("group", ""), row.get("split", ""))


def _rows(path: Path, text: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
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


def _json_entries(path: Path, text: str) -> Iterator[_Entry]:
    content = _json(path, text)
    if isinstance(content, dict):
        content = [{"path": video, "label": label} for video, label in content.items()]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise UserError(f'{path}: a list in JSON is [{{"path": ..., "label": ...}}, ...] or {{path: label}}')
    for number, item in enumerate(content, start=1):
        where = f"{path}, entry {number}"
        video = next((name for name in PATH_COLUMNS if name in item), PATH_COLUMNS[0])
        label = next((name for name in LABEL_COLUMNS if name in item), LABEL_COLUMNS[0])
        row: dict[str, Any] = {name: item.get(name) for name in (video, label, *OTHER_COLUMNS)}
        cells = {name: "" if cell is None else str(cell).strip() for name, cell in row.items()}
        yield _Entry(cells[video], cells[label], where, f"{where} ({label})", cells["group"], cells["split"])


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{path}: JSON that is no list of videos ({error})") from error


def _number(label: str) -> int:
    """Return a label as a number; of thousands of digits, which Python refuses, the first ones say enough."""
    return int(label[:18])
