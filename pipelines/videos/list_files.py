"""Read the files that name videos and classes.

Lists hold ``path label`` lines, or are CSV or JSON; label files are CSV with the header ``id,name``. Of frame folders,
``path n_frames label`` or ``path start n_frames label``. A part of a video is written as columns of times, or behind
its name (``vlmodels.span``). Published lists have CRLF, no final newline, gzip, and names with spaces, commas, quotes,
``#`` and brackets.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from pipelines.videos.list_entries import (
    COUNT_COLUMNS,
    LABEL_COLUMNS,
    LONGEST_LABEL,
    OTHER_COLUMNS,
    PATH_COLUMNS,
    ListLine,
    form_of,
    parse_json,
    read_entries,
    table_rows,
    too_long,
    whole_number,
    with_ends,
)
from pipelines.videos.text_file import read_text
from pipelines.videos.time_columns import Times, time_columns
from vlmodels.errors import UserError, nearest


def read_labels(path: str | Path) -> list[str]:
    """Return the class names of a label CSV, in label order.

    Raises:
        UserError: no such file, no CSV, no header ``id,name``, ids that are not 0, 1, 2, ..., a name twice.
    """
    rows = table_rows(Path(path), read_text(Path(path)))
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
        if len(name) > LONGEST_LABEL:
            raise UserError(f"{where}: {too_long(name)}")
        names.append(name)
    if not names:
        raise UserError(f"{path}: no classes in it")
    return names


def read_list(
    path: str | Path,
    n_classes: int | None = None,
    classes: Sequence[str] | None = None,
    *,
    times: Times | None = None,
) -> list[ListLine]:
    """Return the videos of a list, in its order.

    Lines are ``path label`` (the path may hold spaces), or all have one number, of frames, or two, the first frame and
    the number of frames, before the label. A ``.csv`` has a header with a path (or video, file) and a
    label (or class) column, a ``.json`` is ``[{"path": ..., "label": ...}, ...]`` or ``{path: label}``; there, a
    label may also be a name out of ``classes``. ``times`` says how to read columns of times that could mean two things.

    Raises:
        UserError: no such file, a video without a label, a label outside ``0 .. n_classes - 1`` (file, line and
            column), times of an uncertain unit, no videos.
    """
    path = Path(path)
    index = {name: number for number, name in enumerate(classes or ())}
    n_classes = n_classes if classes is None else len(classes)
    found = []
    for entry in read_entries(path, times):
        label = whole_number(entry.label) if entry.label.isdecimal() else index.get(entry.label)
        if label is None:
            names = f" and no class of its label file{nearest(entry.label, index)}" if index else ""
            raise UserError(f"{entry.label_at}: label '{entry.label}' is not a number{names}")
        if n_classes is not None and label >= n_classes:
            raise UserError(
                f"{entry.label_at}: label {label} is out of range: the label file has {n_classes} classes "
                f"(0 to {n_classes - 1}); is it the label file of this list, and does the list count from 0?"
            )
        found.append(entry.line(label))
    return found


def read_videos(path: str | Path, times: Times | None = None) -> tuple[list[str], list[ListLine]]:
    """Return the sorted class names, and the videos, of a CSV or JSON list that labels videos by class name.

    Raises:
        UserError: as :func:`read_list`; labels that are all numbers, which name no classes.
    """
    path = Path(path)
    entries = list(read_entries(path, times))
    classes = sorted({entry.label for entry in entries})
    if all(name.isdecimal() for name in classes):
        raise UserError(f"{path}: its labels are numbers; --labels CSV says which classes they are")
    index = {name: number for number, name in enumerate(classes)}
    return classes, [entry.line(index[entry.label]) for entry in entries]


def unused_columns(path: str | Path, times: Times | None = None) -> tuple[str, ...]:
    """Return the columns of a CSV or JSON list, as written, that nothing here reads."""
    path = Path(path)
    text = read_text(path)
    kind, mark = form_of(path, text)
    if kind == "json":
        content = parse_json(path, text)
        items = content if isinstance(content, list) else []
        names = dict.fromkeys(str(name) for item in items if isinstance(item, dict) for name in with_ends(item))
    elif kind == "csv" and mark:
        names = dict.fromkeys(cell.strip() for cell in next(table_rows(path, text, mark), ("", []))[1])
    else:
        return ()
    known = {name.lower() for name in names}
    options = (PATH_COLUMNS, LABEL_COLUMNS, COUNT_COLUMNS)
    used = {next((name for name in one if name in known), "") for one in options}.union(OTHER_COLUMNS) - {""}
    if times != "ignore" and (columns := time_columns(list(names), f"{path}:1")):
        used |= {columns.start.lower(), columns.end.lower()}
    return tuple(name or "(unnamed)" for name in names if name.lower() not in used)


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
        kind, mark = form_of(path, text)
        content = parse_json(path, text) if kind == "json" else None
    except UserError:
        return True
    if kind == "json":
        if isinstance(content, dict):
            return bool(content) and all(isinstance(label, (str, int)) for label in content.values())
        return isinstance(content, list) and any(name in item for item in content[:1] for name in PATH_COLUMNS[:3])
    if kind == "csv" and mark:
        header = {cell.strip().lower() for cell in text.partition("\n")[0].split(mark)}
        return not header.isdisjoint(PATH_COLUMNS[:3] + LABEL_COLUMNS)
    lines = [line.split() for line in text.split("\n") if line.strip()]
    return 2 * sum(len(words) > 1 and words[-1].isdecimal() for words in lines) >= len(lines)
