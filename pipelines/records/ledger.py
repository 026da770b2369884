"""The ledger of results: finished runs are read from wherever they lie and become the papers' tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.published import Beside, beside, method_changes, recipe_changes, views_of
from pipelines.records.summary import SELECTIONS, Column, Record, Summary, columns_of, summarise, title, views
from vlmodels.errors import UserError


@dataclass(frozen=True, slots=True)
class Placed:
    """A score in a table: the group that it is of, by its number from 1, and what is printed."""

    number: int
    summary: Summary
    column: Column
    printed: Beside | None


@dataclass(slots=True)
class Row:
    """A method with one configuration, and its scores on all data sets."""

    label: str
    about: str
    cells: dict[Column, Placed] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The table of a protocol; columns are data set by data set."""

    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Ledger:
    """All groups of runs, numbered from 1 in this order, and the tables that they fill."""

    summaries: tuple[Summary, ...]
    tables: tuple[Table, ...]

    def to_json(self, pictures: Sequence[str] = ()) -> str:
        """Every score with its counts and the printed one, and the pictures' files, as JSON without NaN."""
        plain = [_plain(placed) for t in self.tables for row in t.rows for placed in row.cells.values()]
        content = {"schema": 1, "scores": plain, "pictures": list(pictures)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def make_ledger(records: Sequence[Record], *, protocol: str | None = None, dataset: str | None = None) -> Ledger:
    """Group seeds and put every group into the row of its method and configuration.

    Raises:
        UserError: nothing is left; says what there was.
    """
    if not records:
        raise UserError("no finished run in these folders; train with a script of pipelines/, or name others (--runs)")
    summaries = sorted(
        (s for s in summarise(records) if _wanted(s, protocol, dataset)),
        key=lambda s: (_ORDER.index(s.protocol), s.first["dataset"], s.first["method"], s.shots or 0),
    )
    if not summaries:
        there = sorted({(s.protocol, column.dataset) for s in summarise(records) for column in s.cells})
        raise UserError(
            f"none of {len(records)} runs is of protocol {protocol or 'any'} on {dataset or 'any data set'}; there are "
            + ", ".join(f"{p} on {d}" for p, d in there)
        )
    tables = []
    for name in dict.fromkeys(s.protocol for s in summaries):
        own = [(number, s) for number, s in enumerate(summaries, 1) if s.protocol == name]
        columns = [c for c in columns_of(s for _, s in own) if _in_table(c, dataset)]
        tables.append(Table(name, tuple(sorted(columns, key=_column_order(columns))), _rows(own, set(columns))))
    return Ledger(tuple(summaries), tuple(tables))


_ORDER = tuple(PROTOCOLS)


def _wanted(summary: Summary, protocol: str | None, dataset: str | None) -> bool:
    sets = {column.dataset for column in summary.cells}
    return protocol in (None, summary.protocol) and (dataset is None or dataset in sets)


def _in_table(column: Column, dataset: str | None) -> bool:
    """Few-shot tables print top-1 alone."""
    return dataset in (None, column.dataset) and not column.metric.startswith("top5 K=")


def _column_order(columns: Sequence[Column]) -> Callable[[Column], tuple[int, int]]:
    """Data sets as they came, shots ascending, the rest as the papers have it."""
    datasets = list(dict.fromkeys(column.dataset for column in columns))

    def key(column: Column) -> tuple[int, int]:
        shots = column.metric.partition("K=")[2]
        return datasets.index(column.dataset), int(shots or 0)

    return key


def _rows(numbered: Sequence[tuple[int, Summary]], columns: set[Column]) -> tuple[Row, ...]:
    """What differs in views has rows of its own, but for views that a paper itself changes with the data set."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for number, summary in numbered:
        cells = {c: Placed(number, summary, c, beside(summary, c)) for c in summary.cells if c in columns}
        key = label_of(summary), _about(summary), views_of(summary) or views(summary.first)
        row = next((r for r in rows.get(key, ()) if not r.cells.keys() & cells.keys()), None)
        if row is None:
            rows.setdefault(key, []).append(row := Row(key[0], ""))
        row.cells |= cells
    every = [row for same in rows.values() for row in same]
    for row in every:
        row.about = about(*(placed.summary for placed in row.cells.values()))
    return tuple(sorted(every, key=_row_order))


def _row_order(row: Row) -> tuple[str, int]:
    """Backbone by backbone, what trains nothing first."""
    summary = next(iter(row.cells.values())).summary
    return summary.backbone, summary.trainable


def label_of(summary: Summary) -> str:
    """The method, with the settings that are not its preset's."""
    changes = method_changes(summary.first)
    said = ", ".join(f"{key}={value}" for key, value in changes.items())
    return summary.first["method"] + (f" ({said})" if said else "")


def about(summary: Summary, *others: Summary) -> str:
    """What a row's scores are of, in short: backbone, preset, start, recipe, epoch kept, seeds, views."""
    seen = dict.fromkeys(views(each.first) for each in (summary, *others))
    return f"{_about(summary)}, {' or '.join(seen)}"


def _about(summary: Summary) -> str:
    preset, count = summary.first["preset"], len(summary.records)
    parts = [summary.backbone, *([f"preset {preset}"] if preset else []), *_trained(summary)]
    return ", ".join([*parts, f"{count} seed{'s' if count > 1 else ''}"])


def _trained(summary: Summary) -> Iterator[str]:
    record = summary.first
    if summary.started_from:
        yield f"started from {summary.started_from}"
    if not record["history"]:
        return
    if summary.protocol == "zero_shot":
        yield f"trained on {title(record['dataset'])}"
    yield from (f"{key}={value}" for key, value in recipe_changes(record).items())
    if record["selection"] != "last":
        yield f"epoch kept: {SELECTIONS[record['selection']]}"


def _plain(placed: Placed) -> dict[str, Any]:
    summary, column, printed = placed.summary, placed.column, placed.printed
    cell, record = summary.cells[column], summary.first
    told = printed and {
        "value": printed.score.value,
        "source": printed.score.source,
        "variant": printed.score.variant,
        "difference": printed.difference,
        "remarks": list(printed.remarks),
    }
    return {
        "protocol": summary.protocol,
        "dataset": column.dataset,
        "metric": column.metric,
        "method": record["method"],
        "settings": method_changes(record),
        "preset": record["preset"],
        "backbone": summary.backbone,
        "runs": [r["name"] for r in summary.records],
        "seeds": [r["seed"] for r in summary.records],
        "scoring": dict(record["scoring"]),
        "selection": record["selection"],
        "mean": cell.mean,
        "std": cell.std,
        "values": list(cell.values),
        "n_listed": list(cell.listed),
        "n_scored": list(cell.scored),
        "n_quarantined": [n - s for n, s in zip(cell.listed, cell.scored, strict=True)],
        "chance": cell.chance,
        "published": told,
    }
