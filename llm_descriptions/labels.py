"""Class lists: the published label CSV (``id,name``), and matches between different spellings of a name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read the class names of a CSV with the header ``id,name``, in the order of their ids (0, 1, ...).

    Raises:
        DescriptionError: a column is missing, an id is out of order, or a name is blank or repeated; the message names
            the file and the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"id", "name"}.issubset(reader.fieldnames or ()):
                raise DescriptionError(f"{path}: the first line must be 'id,name', got {reader.fieldnames}")
            rows = [(reader.line_num, (row["id"] or "").strip(), (row["name"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DescriptionError(f"cannot read the class list {path}: {error}") from error
    names: dict[str, int] = {}
    for line, number, name in rows:
        if number != str(len(names)):
            raise DescriptionError(f"{path}, line {line}: expected id {len(names)}, got '{number}'")
        if not name:
            raise DescriptionError(f"{path}, line {line}: the class name is blank")
        if name in names:
            raise DescriptionError(f"{path}, line {line}: '{name}' is already the name of id {names[name]}")
        names[name] = len(names)
    if not names:
        raise DescriptionError(f"{path} lists no classes")
    return tuple(names)


def folded(name: str) -> str:
    """Return a class name in a spelling for comparison: lower case, with single spaces instead of ``_``."""
    return " ".join(name.casefold().replace("_", " ").split())


def match_names(labels: Sequence[str], known: Sequence[str]) -> dict[str, str | None]:
    """Match each label to the known name equal to it, else to the only one equal when ``folded``, else to None."""
    exact = set(known)
    by_folded: dict[str, list[str]] = {}
    for name in known:
        by_folded.setdefault(folded(name), []).append(name)
    return {label: label if label in exact else _only(by_folded, folded(label)) for label in labels}


def _only(by_folded: Mapping[str, list[str]], key: str) -> str | None:
    found = by_folded.get(key, [])
    return found[0] if len(found) == 1 else None
