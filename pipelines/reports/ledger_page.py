"""The ledger's files: ``report.html`` with pictures, ``report.md``, and every number as ``ledger.json``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.find import Run
from pipelines.records.ledger import Entry, Ledger, Table, about, label_of
from pipelines.records.run_file import SELECTIONS, Cost
from pipelines.records.summary import Column, Summary, title, views_text
from pipelines.reports.page import TEMPLATES, markdown, write_page
from pipelines.storage.files import write_whole
from pipelines.storage.place import is_uri
from vlmodels.errors import UserError
from vlmodels.published import CLASS_NAMES, Score

_LEGEND = (
    "Each score is ours, in percent (MdR and MnR are ranks); mean ± population standard deviation where there are "
    "several seeds or lists; HM is that of the averaged base and novel accuracies. Below it: the published score and "
    "our difference from it, and how many of the listed videos were scored; those that cannot be decoded count as "
    "wrong. Letters behind a published score say what is unlike the published run, or what contradicts the score. "
    "Class names are the data set's, unless a row or a letter says that a language model rephrased them. A dash: "
    "nothing is published for this method, backbone, data set and setting. An empty cell: not run."
)


def write_ledger(ledger: Ledger, runs: Sequence[Run], out: Path, *, brief: bool = False) -> Path:
    """Write the ledger's files into ``out``; return the page.

    Args:
        ledger: what to write.
        runs: all runs of the ledger.
        out: folder; made if it is not there.
        brief: leave out the pictures of single runs.

    Raises:
        UserError: ``out`` cannot be written.
    """
    from pipelines.reports.ledger_pictures import common, single

    try:
        out.mkdir(parents=True, exist_ok=True)
        marks = _Marks()
        tables = [_table(table, marks) for table in ledger.tables]
        shown = [_run(number, summary, runs, out) for number, summary in enumerate(ledger.summaries, 1)]
        text = "\n".join(_markdown(tables, marks, shown)) + "\n"
        write_whole(out / "report.md", lambda part: part.write_text(text, encoding="utf-8"))
        shared = [list(common(table, out)) for table in ledger.tables]
        own = {} if brief else single(ledger, runs, out)
        page = write_page(
            out / "report.html",
            TEMPLATES / "ledger.html.j2",
            title="Results",
            width=90,
            tables=list(zip(tables, shared, strict=True)),
            caveats=marks.listed(),
            runs=[run | {"pictures": own.get(run["number"], [])} for run in shown],
            costs=_COSTS,
            legend=f"{_LEGEND} Raised numbers: the run below.",
        )
        pictures = [picture.file for drawn in (*shared, *own.values()) for picture in drawn]
        stale = _earlier(out) - set(pictures)
        write_whole(out / "ledger.json", lambda part: part.write_text(ledger.to_json(pictures), encoding="utf-8"))
        for name in stale:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the report cannot be written to {out} ({error}); pass another --out") from error
    return page


def _earlier(out: Path) -> set[str]:
    """Return the pictures that an earlier report wrote into ``out``, by its own list."""
    try:
        listed = json.loads((out / "ledger.json").read_text(encoding="utf-8"))["pictures"]
        return {name for name in listed if isinstance(name, str) and re.fullmatch(r"[\w-]+\.png", name, re.ASCII)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


class _Marks:
    """Letters for caveats, in order of appearance."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def marks(self, caveats: Sequence[str]) -> str:
        """Return the letters of caveats."""
        return ",".join(self._letters.setdefault(caveat, _letter(len(self._letters))) for caveat in caveats)

    def listed(self) -> list[tuple[str, str]]:
        """Return all letters so far, with their caveats."""
        return [(letter, caveat) for caveat, letter in self._letters.items()]


def _letter(number: int) -> str:
    """Return a, b, ... z, aa, ab, ..."""
    before = _letter(number // 26 - 1) if number >= 26 else ""
    return before + chr(ord("a") + number % 26)


def _table(table: Table, marks: _Marks) -> dict[str, Any]:
    groups: list[tuple[str, int]] = []
    for column in table.columns:
        name = title(column.dataset)
        if groups and groups[-1][0] == name:
            groups[-1] = (name, groups[-1][1] + 1)
        else:
            groups.append((name, 1))
    return {
        "title": PROTOCOLS[table.protocol].title.capitalize(),
        "groups": groups,
        "head": [column.heading for column in table.columns],
        "first": [not i or c.dataset != table.columns[i - 1].dataset for i, c in enumerate(table.columns)],
        "rows": [
            {
                "label": row.label,
                "about": row.about,
                "cells": [_cell(row.cells.get(column), column, marks) for column in table.columns],
            }
            for row in table.rows
        ],
    }


def _printed_in(score: Score) -> str:
    return f"{score.source}; class names {CLASS_NAMES[score.class_names]}"


def _cell(entry: Entry | None, column: Column, marks: _Marks) -> dict[str, Any] | None:
    if entry is None:
        return None
    cell, comparison = entry.summary.cells[column], entry.comparison
    published = {"published": ""}
    if comparison is not None:
        published = {
            "published": comparison.score.value,
            "source": _printed_in(comparison.score),
            "difference": f"{comparison.difference:+.1f}",
            "marks": marks.marks(comparison.caveats),
        }
    return {
        "ours": cell.text,
        "number": entry.number,
        "counts": cell.counts,
        "complete": cell.complete,
        **published,
    }


_COSTS = ("step (s)", "clips/s, training", "views/s, scoring", "peak memory (MB)", "trainable", "GMACs a view")


def _run(number: int, summary: Summary, runs: Sequence[Run], out: Path) -> dict[str, Any]:
    record = summary.first
    tested = dict.fromkeys(title(column.dataset) for column in summary.cells)
    names = [r.name for r in summary.records]
    places = [next(run.place for run in runs if run.record.name == name) for name in names]
    shots = f", K={summary.shots}" if summary.shots else ""
    return {
        "number": number,
        "label": label_of(summary),
        "about": about(summary),
        "links": [(name, _link(place, out)) for name, place in zip(names, places, strict=True)],
        "data": f"{PROTOCOLS[summary.protocol].title} on {', '.join(tested)}{shots}",
        "views": views_text(record),
        "notes": record.facts.view_notes or ("no views of its paper are on record",),
        "kept": _kept(summary),
        "costs": _costs(record.cost, summary.trainable),
    }


def _costs(cost: Cost, trainable: int) -> list[str]:
    """Return the texts of the columns ``_COSTS``."""
    return [
        _number(cost.step_seconds, ".3g"),
        _number(cost.train_clips_per_second, ".3g"),
        _number(cost.scored_views_per_second, ".3g"),
        _number(cost.peak_memory_mb, ",.0f"),
        f"{trainable:,}",
        _number(cost.gmacs_video, ".1f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _kept(summary: Summary) -> str:
    if summary.first.history:
        return SELECTIONS[summary.first.selection]
    return f"that of {summary.started_from}" if summary.started_from else "nothing trained"


def _link(place: str, out: Path) -> str:
    page = f"{place}/report/report.html"
    if is_uri(place):
        return quote(page, safe="/:?=&@%")  # what the user wrote may be quoted already
    return quote(Path(os.path.relpath(page, out.resolve())).as_posix())


def _markdown(tables: Sequence[dict[str, Any]], marks: _Marks, shown: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Results\n"
    for table in tables:
        yield f"## {table['title']}\n"
        names = [name for name, count in table["groups"] for _ in range(count)]
        head = [f"{markdown(name)} {metric}" for name, metric in zip(names, table["head"], strict=True)]
        yield from _lines(["method", *head])
        for row in table["rows"]:
            label = f"{markdown(row['label'])}<br>{markdown(row['about'])}"
            yield "| " + " | ".join([label, *map(_markdown_cell, row["cells"])]) + " |"
        yield ""
    yield _LEGEND + " Numbers in brackets: the run below.\n"
    yield from (f"- {letter}: {markdown(caveat)}" for letter, caveat in marks.listed())
    yield "\n## Runs\n"
    yield from _lines(["#", "run", "views", "epoch kept", *_COSTS])
    for run in shown:
        what = f"{markdown(run['label'])}, {markdown(run['data'])}<br>" + markdown(
            ", ".join(name for name, _ in run["links"])
        )
        seen = "<br>".join(map(markdown, [run["views"], *run["notes"]]))
        yield "| " + " | ".join([str(run["number"]), what, seen, run["kept"], *run["costs"]]) + " |"


def _lines(head: Sequence[str]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"


def _markdown_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    published = f"{cell['published']}, {cell['difference']}" if cell["published"] else "-"
    mark = f" {cell['marks']}" if cell.get("marks") else ""
    return f"**{cell['ours']}** [{cell['number']}]<br>{published}{mark}<br>{cell['counts']}"
