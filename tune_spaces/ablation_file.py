"""Ablations in TOML files: named tables of settings to compare, with the numbers that a paper prints for them.

The papers' ablations are in ``published/METHOD.toml``; a user's own file has the same form::

    method = "msta"                       # default: the file's name

    [places]                              # one table for each ablation
    title = "Which block reads what"
    source = "our own"                    # "MSTA table 6f" where a paper prints numbers
    protocol = "b2n"                      # or few_shot, supervised, zero_shot, retrieval
    preset = "b2n"                        # the method's preset that the rows change
    data = "HMDB51"                       # the data that the printed numbers are from
    columns = ["Base", "Novel", "HM"]
    notes = []                            # optional: remarks for the reader
    baseline = { label = "CLIP", printed = [] }  # optional: a row of another method, which is not run

    [[places.rows]]
    label = "raw input"
    set = { "method.input" = "raw" }      # keys and values as in --set
    printed = []                          # or one number for each column
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmodels import methods
from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from tune_spaces.ablation_table import Table
    from tune_spaces.domains import Setting


@dataclass(frozen=True)
class Row:
    """One row of an ablation: its setting, and the number that the paper prints in each column, or no numbers."""

    label: str
    setting: Setting
    printed: tuple[float, ...]


@dataclass(frozen=True)
class Ablation:
    """A table of settings to compare, each on top of a method's preset.

    Attributes:
        source: the paper and table that print it, or "our own".
        data: the data that the ``printed`` numbers are from.
        notes: remarks for the reader.
        baseline: a row of another method, without a setting.
    """

    method: str
    name: str
    title: str
    source: str
    protocol: str
    preset: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    baseline: Row | None = None


def table_names(path: Path) -> list[str]:
    """List the names of a file's ablations.

    Raises:
        UserError: the file cannot be read, is not TOML, or names an unknown method.
    """
    _, tables = _load(path)
    return list(tables)


def read_ablation(path: str | Path, name: str) -> Ablation:
    """Read one ablation of a TOML file, without scaling its layers.

    Raises:
        UserError: the file cannot be read, has no such table, or the table has mistakes; one message names them all.
    """
    from tune_spaces.ablation_table import read_table  # pydantic: late, so that --help does without

    path = Path(path)
    method, tables = _load(path)
    if name not in tables:
        raise UserError(f"{path} has no ablation '{name}'{nearest(name, tables)}; it has {', '.join(tables) or 'none'}")
    return _ablation(read_table(tables[name], f"{path} [{name}]"), method, name)


def _ablation(table: Table, method: str, name: str) -> Ablation:
    return Ablation(
        method=method,
        name=name,
        title=table.title,
        source=table.source,
        protocol=table.protocol,
        preset=table.preset,
        data=table.data,
        columns=tuple(table.columns),
        rows=tuple(Row(row.label, row.setting, tuple(row.printed)) for row in table.rows),
        notes=tuple(table.notes),
        baseline=Row(table.baseline.label, {}, tuple(table.baseline.printed)) if table.baseline else None,
    )


def _load(path: Path) -> tuple[str, Mapping[str, Any]]:
    """Read the method and the tables, not yet checked, of a file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # invalid UTF-8 or invalid TOML
        raise UserError(f"{path} is not TOML: {error}") from error
    method = document.pop("method", path.stem)
    known = methods.names()
    problems = [f"'{key}' is not a table" for key, value in document.items() if not isinstance(value, dict)]
    if method not in known:
        problems.append(
            f"method='{method}' is not a method{nearest(str(method), known)}; write method = ... at the top of the "
            f"file, with one of {', '.join(known)}"
        )
    refuse([f"{path}: {problem}" for problem in problems])
    return method, document
