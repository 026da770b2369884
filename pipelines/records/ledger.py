"""The ledger of results: finished runs as the papers' tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.text import plural
from pipelines.records.comparison import Comparison, compare, method_changes, paper_with_views, recipe_changes
from pipelines.records.run_file import SELECTIONS, RunRecord
from pipelines.records.summary import Column, Summary, class_names_text, columns_of, summarise, title, views_text
from vlmodels.errors import UserError
from vlmodels.published import CLASS_NAMES


@dataclass(frozen=True, slots=True)
class Entry:
    """A score in a table: its group of runs, numbered from 1, and the published score."""

    number: int
    summary: Summary
    column: Column
    comparison: Comparison | None


@dataclass(slots=True)
class Row:
    """A method with one configuration, and its scores by column."""

    label: str
    about: str
    cells: dict[Column, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The table of a protocol; columns are in the order of data sets."""

    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Ledger:
    """All groups of runs, numbered from 1 in this order, and their tables."""

    summaries: tuple[Summary, ...]
    tables: tuple[Table, ...]

    def to_json(self, pictures: Sequence[str] = ()) -> str:
        """Return every score with its counts and the published one, and the pictures' files, as JSON without NaN."""
        plain = [_entry_json(entry) for t in self.tables for row in t.rows for entry in row.cells.values()]
        content = {"schema": 1, "scores": plain, "pictures": list(pictures)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def make_ledger(records: Sequence[RunRecord], *, protocol: str | None = None, dataset: str | None = None) -> Ledger:
    """Group runs by seed and put every group into the row of its method and configuration.

    Raises:
        UserError: no run fits ``protocol`` and ``dataset``; names those of the runs.
    """
    if not records:
        raise UserError("no finished run in these folders; train with a script of pipelines/, or name others (--runs)")
    summaries = sorted(
        (s for s in summarise(records) if _wanted(s, protocol, dataset)),
        key=lambda s: (_ORDER.index(s.protocol), s.first.dataset, s.first.method, s.shots or 0),
    )
    if not summaries:
        available = sorted({(s.protocol, column.dataset) for s in summarise(records) for column in s.cells})
        raise UserError(
            f"none of {len(records)} runs is of protocol {protocol or 'any'} on {dataset or 'any data set'}; there are "
            + ", ".join(f"{p} on {d}" for p, d in available)
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
    """Return whether a column belongs in the tables: few-shot tables print top-1 only."""
    return dataset in (None, column.dataset) and not column.metric.startswith("top5 K=")


def _column_order(columns: Sequence[Column]) -> Callable[[Column], tuple[int, int]]:
    """Order data sets as they came, shots ascending, the rest as the papers do."""
    datasets = list(dict.fromkeys(column.dataset for column in columns))

    def key(column: Column) -> tuple[int, int]:
        shots = column.metric.partition("K=")[2]
        return datasets.index(column.dataset), int(shots or 0)

    return key


def _rows(numbered: Sequence[tuple[int, Summary]], columns: set[Column]) -> tuple[Row, ...]:
    """Give other views rows of their own, except where a paper itself changes views with the data set."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    for number, summary in numbered:
        cells = {c: Entry(number, summary, c, compare(summary, c)) for c in summary.cells if c in columns}
        key = label_of(summary), _about(summary), paper_with_views(summary) or views_text(summary.first)
        row = next((r for r in rows.get(key, ()) if not r.cells.keys() & cells.keys()), None)
        if row is None:
            rows.setdefault(key, []).append(row := Row(key[0], ""))
        row.cells |= cells
    every = [row for same in rows.values() for row in same]
    for row in every:
        row.about = about(*(entry.summary for entry in row.cells.values()))
    return tuple(sorted(every, key=_row_order))


def _row_order(row: Row) -> tuple[str, int]:
    """Order by backbone, and methods that train nothing first."""
    summary = next(iter(row.cells.values())).summary
    return summary.backbone, summary.trainable


def label_of(summary: Summary) -> str:
    """Return the method, with the settings that differ from its preset's."""
    changes = method_changes(summary.first)
    settings = ", ".join(f"{key}={value}" for key, value in changes.items())
    return f"{summary.first.method} ({settings})" if settings else summary.first.method


def about(summary: Summary, *others: Summary) -> str:
    """Describe the runs of a row: backbone, preset, start, recipe, epoch kept, seeds, views."""
    views = dict.fromkeys(views_text(each.first) for each in (summary, *others))
    return f"{_about(summary)}, {' or '.join(views)}"


def _about(summary: Summary) -> str:
    preset = summary.first.preset
    parts = [summary.backbone, *([f"preset {preset}"] if preset else []), *_trained(summary)]
    return ", ".join([*parts, plural(len(summary.records), "seed")])


def _trained(summary: Summary) -> Iterator[str]:
    record = summary.first
    if record.config.protocol.class_names != "dataset":
        yield f"class names {class_names_text(record)}"
    if summary.started_from:
        yield f"started from {summary.started_from}"
    if not record.history:
        return
    if summary.protocol == "zero_shot":
        yield f"trained on {title(record.dataset)}"
    yield from (f"{key}={value}" for key, value in recipe_changes(record).items())
    if record.selection != "last":
        yield f"epoch kept: {SELECTIONS[record.selection]}"


def _entry_json(entry: Entry) -> dict[str, Any]:
    summary, column = entry.summary, entry.column
    cell, record = summary.cells[column], summary.first
    return {
        "protocol": summary.protocol,
        "dataset": column.dataset,
        "metric": column.metric,
        "method": record.method,
        "settings": method_changes(record),
        "preset": record.preset,
        "backbone": summary.backbone,
        "runs": [r.name for r in summary.records],
        "seeds": [r.seed for r in summary.records],
        "class_names": class_names_text(record),
        "scoring": record.scoring.to_json(),
        "selection": record.selection,
        "mean": cell.mean,
        "std": cell.std,
        "values": list(cell.values),
        "n_listed": list(cell.listed),
        "n_scored": list(cell.scored),
        "n_quarantined": [n - s for n, s in zip(cell.listed, cell.scored, strict=True)],
        "chance": cell.chance,
        "published": None if entry.comparison is None else _comparison_json(entry.comparison),
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "value": comparison.score.value,
        "source": comparison.score.source,
        "variant": comparison.score.variant,
        "class_names": CLASS_NAMES[comparison.score.class_names],
        "difference": comparison.difference,
        "remarks": list(comparison.caveats),
    }
