"""Ablations: named tables of settings to compare, with what a paper prints of them, read from TOML files.

The papers' are in ``published/METHOD.toml``; a user's own file has the same form::

    method = "msta"                       # else the file's name says which

    [places]                              # a table for each ablation
    title = "Which block reads what"
    source = "our own"                    # "MSTA table 6f" where a paper prints numbers
    protocol = "b2n"                      # or few_shot, supervised, zero_shot
    preset = "b2n"                        # of the method; what the rows change
    data = "HMDB51"                       # what the printed numbers are of
    columns = ["Base", "Novel", "HM"]
    notes = []                            # optional: what to know of it
    baseline = { label = "CLIP", printed = [] }  # optional: another method's line, only printed

    [[places.rows]]
    label = "raw input"
    set = { "method.input" = "raw" }      # keys and texts as in --set
    printed = []                          # or a number for each column
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from vlmodels import methods
from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from tune_spaces.domains import Setting


@dataclass(frozen=True)
class Row:
    """A line of an ablation: its setting, and what the paper prints in each column, or nothing."""

    label: str
    setting: Setting
    printed: tuple[float, ...]


@dataclass(frozen=True)
class Ablation:
    """A table of settings to compare, on top of a method's preset.

    ``data`` says what ``printed`` was scored on; ``baseline`` is a line of another method, without a setting.
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


class _Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    label: str = pydantic.Field(min_length=1)
    printed: list[float]


class _SetLine(_Line):
    setting: dict[str, str] = pydantic.Field(alias="set", min_length=1)


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    title: str
    source: str
    protocol: Literal["b2n", "few_shot", "supervised", "zero_shot"]
    preset: str
    data: str
    columns: list[str] = pydantic.Field(min_length=1)
    rows: list[_SetLine] = pydantic.Field(min_length=1)
    notes: list[str] = []
    baseline: _Line | None = None

    def problems(self) -> list[str]:
        """What is wrong although each value is of its type."""
        return [
            f"'{line.label}' prints {len(line.printed)} numbers for the {len(self.columns)} columns "
            f"({', '.join(self.columns)}); write one for each, or printed = []"
            for line in (*self.rows, *([self.baseline] if self.baseline else []))
            if len(line.printed) not in (0, len(self.columns))
        ]


def table_names(path: Path) -> list[str]:
    """Names of a file's ablations.

    Raises:
        UserError: the file cannot be read.
    """
    return list(_load(path)[1])


def read_ablation(path: str | Path, name: str) -> Ablation:
    """An ablation of a TOML file, as it stands there.

    Raises:
        UserError: the file cannot be read, has no such table, or the table is not as it must be; tells all.
    """
    path = Path(path)
    method, tables = _load(path)
    if name not in tables:
        raise UserError(f"{path} has no ablation '{name}'{nearest(name, tables)}; it has {', '.join(tables) or 'none'}")
    try:
        table = _Table.model_validate(tables[name])
    except pydantic.ValidationError as error:
        raise UserError(f"{path} [{name}]: {'; '.join(map(_told, error.errors()))}") from error
    refuse([f"{path} [{name}]: {problem}" for problem in table.problems()])
    return Ablation(
        method=method,
        name=name,
        title=table.title,
        source=table.source,
        protocol=table.protocol,
        preset=table.preset,
        data=table.data,
        columns=tuple(table.columns),
        rows=tuple(Row(line.label, line.setting, tuple(line.printed)) for line in table.rows),
        notes=tuple(table.notes),
        baseline=Row(table.baseline.label, {}, tuple(table.baseline.printed)) if table.baseline else None,
    )


def _load(path: Path) -> tuple[str, Mapping[str, Any]]:
    """The method and the tables of a file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, or no TOML
        raise UserError(f"{path} is not TOML: {error}") from error
    method = document.pop("method", path.stem)
    known = methods.names()
    problems = [f"'{key}' is no table" for key, value in document.items() if not isinstance(value, dict)]
    if method not in known:
        problems.append(
            f"method='{method}' is no method{nearest(str(method), known)}; write method = ... at the top of the file, "
            f"one of {', '.join(known)}"
        )
    refuse([f"{path}: {problem}" for problem in problems])
    return method, document


def _told(problem: ErrorDetails) -> str:
    """A problem with its place, such as "row 2 printed"."""
    place, kind = problem["loc"], problem["type"]
    words = [str(part + 1) if isinstance(part, int) else part for part in place]
    where, last = " ".join(words).replace("rows ", "row "), str(place[-1])
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        known = [f.alias or name for model in (_Table, _SetLine) for name, f in model.model_fields.items()]
        return f"{where} is not known{nearest(last, known)}"
    if kind in ("too_short", "string_too_short"):
        return f"{where} is empty"
    hint = '; settings are texts under quoted keys, such as "method.dims" = "64"' if "set" in place else ""
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{hint}"
