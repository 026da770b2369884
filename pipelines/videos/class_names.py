"""Class names that a user types or keeps in a file, to choose among in a prediction."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.videos.list_files import is_table, read_labels
from pipelines.videos.locate import loosely
from pipelines.videos.text_file import read_text
from vlmodels.errors import UserError
from vlmodels.paths import is_file, is_folder


def read_names(given: str) -> list[str]:
    """Return class names: those of a file, or of a text in which commas separate them and quotes hold commas.

    A file is a label CSV (id,name), or has a name on each line.

    Raises:
        UserError: no such file, no names in it, a quote that is left open.
    """
    file = Path(given)
    if is_file(file):
        names = read_labels(file) if is_table(file) else [line.strip() for line in read_text(file).split("\n")]
    elif is_table(file) or given.lower().endswith(".txt"):
        raise UserError(f"--labels {given}: no such file")
    elif given and is_folder(given):
        raise UserError(f"--labels {given}: it is a folder; give a file of class names, or the names with commas")
    else:
        names = _typed(given)
    if not any(names):
        raise UserError(f"--labels {given}: no class names in it")
    return [name for name in names if name]


def cut_names(names: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yield each of the ``known`` names that has commas and that ``names`` hold in pieces."""
    pieces = [loosely(name) for name in names]
    for name in known:
        parts = [loosely(part) for part in name.split(",")]
        starts = range(len(pieces) - len(parts) + 1)
        if len(parts) > 1 and any(pieces[start : start + len(parts)] == parts for start in starts):
            yield name


def _typed(text: str) -> list[str]:
    try:
        rows = list(csv.reader(text.splitlines(), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(
            f"--labels {text}: {error}; a name with commas goes between double quotes, and commas separate names"
        ) from error
    return [cell.strip() for row in rows for cell in row]
