"""Tables, pictures and pages from ``run.json``: one report for each run, one comparison for several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import plots

Record = Mapping[str, Any]


def table(records: Sequence[Record], *, names: Mapping[str, str] | None = None) -> str:
    """Plain-text table: method, base, novel, HM, trainable parameters, seconds."""
    header = ("method", "base", "novel", "HM", "trainable", "seconds")
    rows = [header, *([(names or {}).get(r["name"], r["method"]), *_cells(r)] for r in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(record: Record) -> list[str]:
    metrics = record["metrics"]
    return [
        f"{metrics['base']['top1']:.1f}",
        f"{metrics['novel']['top1']:.1f}",
        f"{metrics['hm']:.1f}",
        f"{record['facts']['trainable']:,}",
        f"{record['seconds']['total']:.0f}",
    ]


def write_run_report(folder: Path) -> Path:
    """Write ``folder/report/`` from the run's record and predictions; return the page."""
    record = json.loads((folder / "run.json").read_text())
    report = folder / "report"
    report.mkdir(exist_ok=True)
    pictures = []
    with np.load(folder / "predictions.npz") as predictions:
        for name, classes in record["classes"].items():
            target, score = predictions[f"{name}/target"], predictions[f"{name}/score"]
            counts = confusion(target, score.argmax(1), len(classes))
            pictures.append(
                (f"Confusion, {name} classes", plots.confusion(counts, classes, report / f"confusion_{name}"))
            )
    pictures.insert(0, ("Accuracy", plots.accuracy_bars([record], [record["method"]], report / "accuracy")))
    if record["history"]:
        pictures.insert(
            1, ("Training", plots.curves(record["history"], report / "curves", selection=record["selection"]))
        )
    page = report / "report.html"
    page.write_text(_page(record["name"], [record], pictures, record), encoding="utf-8")
    return page


def write_comparison(
    records: Sequence[Record], out: Path, *, title: str, names: Mapping[str, str], runs: Mapping[str, str]
) -> Path:
    """Write ``out/report.html`` that sets several runs side by side; ``runs``: run name to its report's link."""
    out.mkdir(parents=True, exist_ok=True)
    labels = [names.get(r["name"], r["method"]) for r in records]
    pictures = [("Accuracy", plots.accuracy_bars(records, labels, out / "accuracy"))]
    trained = [(label, r["history"]) for label, r in zip(labels, records, strict=True) if r["history"]]
    if trained:
        pictures.append(("Loss", plots.losses(trained, out / "losses")))
    page = out / "report.html"
    page.write_text(_page(title, records, pictures, None, names=names, links=runs), encoding="utf-8")
    return page


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(true, predicted)``."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    return counts


def _page(
    title: str,
    records: Sequence[Record],
    pictures: Sequence[tuple[str, Path]],
    detail: Record | None,
    *,
    names: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_TEMPLATE)
    rows = [
        {
            "label": (names or {}).get(r["name"], r["method"]),
            "link": (links or {}).get(r["name"]),
            "cells": _cells(r),
            "counts": "; ".join(
                f"{name}: {r['metrics'][name]['n_scored']} of {r['metrics'][name]['n_listed']} videos scored, "
                f"chance {r['metrics'][name]['chance']:.1f}"
                for name in r["classes"]
            ),
        }
        for r in records
    ]
    from pipelines.tracking import flatten

    return template.render(
        title=title,
        rows=rows,
        pictures=[(caption, path.name) for caption, path in pictures],
        record=detail,
        settings=sorted(flatten(detail["config"]).items()) if detail else [],
        facts=sorted(flatten(detail["facts"]).items()) if detail else [],
        unscored=[(name, *pair) for name, pairs in detail["unscored"].items() for pair in pairs] if detail else [],
    )


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td.k { font-family: monospace; font-size: 13px; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption, .small { color: #666; font-size: 13px; }
</style></head><body>
<h1>{{ title }}</h1>
<table><tr><th>method</th>{% for h in ["base", "novel", "HM", "trainable", "seconds"] %}<th class="n">{{ h }}</th>
{% endfor %}</tr>
{% for row in rows %}<tr><td>{% if row.link %}<a href="{{ row.link }}">{{ row.label }}</a>{% else %}{{ row.label }}
{% endif %}</td>{% for cell in row.cells %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p class="small">Top-1 in percent. {{ rows[0].counts }}. HM is the harmonic mean of base and novel.
{% if record %}Epoch kept: {{ record.epoch_kept }} (selection: {{ record.selection }}).
Split: {{ record.facts.split_source }}.{% endif %}</p>
{% for caption, file in pictures %}<figure><img src="{{ file }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption></figure>{% endfor %}
{% if unscored %}<h2>Listed but not decodable (counted as wrong)</h2><table>
{% for name, uri, reason in unscored %}<tr><td>{{ name }}</td><td class="k">{{ uri }}</td><td>{{ reason }}</td></tr>
{% endfor %}</table>{% endif %}
{% if record %}<h2>Settings</h2><table>{% for key, value in settings %}<tr><td class="k">{{ key }}</td>
<td class="k">{{ value }}</td></tr>{% endfor %}</table>
<h2>Facts</h2><table>{% for key, value in facts %}<tr><td class="k">{{ key }}</td><td class="k">{{ value }}</td></tr>
{% endfor %}</table>{% endif %}
</body></html>
"""
