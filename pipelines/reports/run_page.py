"""The page of one run, and the page that sets several side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.records.summary import SELECTIONS, Column, Record, Summary, columns_of, headings, summarise
from pipelines.reports.page import Picture, file_name, write_page

if TYPE_CHECKING:
    import numpy as np


def write_run_report(folder: Path) -> Path:
    """Write ``folder/report/`` from the run's record and predictions; return the page."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    report = folder / "report"
    report.mkdir(exist_ok=True)
    summary = Summary([record])
    columns = columns_of([summary])
    pictures = [*_numbers(summary, columns, report), *_confusions(record, folder / "predictions.npz", report)]
    return write_page(
        report / "report.html",
        _RUN,
        title=record["name"],
        pictures=pictures,
        record=record,
        head=headings(columns, summary.protocol),
        rows=_rows([summary], columns, {}, {}),
        sets=_sets(record),
        says=says(summary),
        settings=_flat(record["config"]),
        facts=_flat(record["facts"]),
        unscored=[(name, *pair) for name, pairs in record["unscored"].items() for pair in pairs],
    )


def _numbers(summary: Summary, columns: Sequence[Column], report: Path) -> Iterator[Picture]:
    from pipelines.reports import score_plots

    record = summary.first
    yield Picture("Scores", score_plots.accuracy_bars([summary], [record["method"]], columns, report / "accuracy").name)
    if record["history"]:
        drawn = score_plots.curves(record["history"], report / "curves", selection=record["selection"])
        yield Picture("Training", drawn.name)
    if any("probe" in record["metrics"][name] for name in record["classes"]):
        sets = {name: record["metrics"][name] for name in record["classes"]}
        caption = "Temporal probe: does the order of frames matter?"
        yield Picture(caption, score_plots.probe_bars(sets, report / "probe").name)


def _confusions(record: Record, path: Path, report: Path) -> Iterator[Picture]:
    import numpy as np

    from pipelines.reports import score_plots
    from pipelines.reports.prediction_plots import predicted

    with np.load(path, allow_pickle=False) as arrays:
        for number, (name, classes) in enumerate(record["classes"].items()):
            found = predicted(arrays, name)
            if found is not None:
                counts = confusion(found.targets, found.best, len(classes))
                drawn = score_plots.confusion(counts, classes, report / f"confusion_{file_name(name)}_{number}")
                yield Picture(f"Confusion, {name}", drawn.name)


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts ``(true, predicted)``."""
    import numpy as np

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    return counts


def write_comparison(
    records: Sequence[Record], out: Path, *, title: str, names: Mapping[str, str], runs: Mapping[str, str]
) -> Path:
    """Write ``out/report.html`` that sets runs of one protocol side by side, seeds together.

    Args:
        records: contents of ``run.json``.
        out: folder; made if it is not there.
        title: of the page.
        names: run name to what it is called instead of its method.
        runs: run name to the link of its own report.
    """
    from pipelines.reports import score_plots

    out.mkdir(parents=True, exist_ok=True)
    summaries = summarise(records)
    columns = columns_of(summaries)
    labels = [names.get(s.first["name"], s.first["method"]) for s in summaries]
    pictures = [Picture("Scores", score_plots.accuracy_bars(summaries, labels, columns, out / "accuracy").name)]
    trained = [(n, s.first["history"]) for n, s in zip(labels, summaries, strict=True) if s.first["history"]]
    if trained:
        pictures.append(Picture("Loss", score_plots.losses(trained, out / "losses").name))
    return write_page(
        out / "report.html",
        _COMPARISON,
        title=title,
        pictures=pictures,
        head=headings(columns, summaries[0].protocol),
        rows=_rows(summaries, columns, names, runs),
        seeds=any(len(s.records) > 1 for s in summaries),
        hm=summaries[0].protocol == "b2n",
    )


def _rows(
    summaries: Iterable[Summary], columns: Sequence[Column], names: Mapping[str, str], links: Mapping[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "label": names.get(s.first["name"], s.first["method"]),
            "link": links.get(s.first["name"]),
            "cells": [s.cells.get(column) for column in columns],
            "seeds": len(s.records),
            "trainable": s.trainable,
            "seconds": s.seconds,
        }
        for s in summaries
    ]


def says(summary: Summary) -> list[tuple[str, str]]:
    """What a reader must know of a run to read its score: what, on what, how looked at, how chosen."""
    from pipelines.records.summary import views

    record = summary.first
    epochs = len(record["history"])
    start = [("started from", summary.started_from)] if summary.started_from else []
    untrained = "that of the start" if start else "nothing was trained"
    lines = [
        ("method", record["method"] + (f", preset {record['preset']}" if record["preset"] else "")),
        ("backbone", f"{summary.backbone}, weights {record['config']['backbone']['pretrained'] or 'random'}"),
        ("data", f"{record['dataset']}: {record['facts']['split_source']}"),
        ("views", f"{views(record)} a video, {record['scoring']['average']} averaged over views"),
        *start,
        (
            "epoch kept",
            f"{record['epoch_kept']} of {epochs}: {SELECTIONS[record['selection']]}" if epochs else untrained,
        ),
        ("seed", str(record["seed"])),
    ]
    return lines + [("note", str(note)) for note in record["facts"].get("notes", ())]


def _sets(record: Record) -> list[dict[str, Any]]:
    return [
        {"name": name, "classes": len(classes), **{k: v for k, v in record["metrics"][name].items() if k != "probe"}}
        for name, classes in record["classes"].items()
    ]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    from pipelines.config.plain import flatten

    return sorted(flatten(values).items())


_SCORES = """<div class="wide"><table><tr><th>method</th>{% for h in head %}<th class="n">{{ h }}</th>{% endfor %}
{% if seeds %}<th class="n">seeds</th>{% endif %}<th class="n">trainable</th><th class="n">seconds</th></tr>
{% for row in rows %}<tr><td>{% if row.link %}<a href="{{ row.link }}">{{ row.label }}</a>{% else %}{{ row.label }}
{% endif %}</td>{% for cell in row.cells %}<td class="n">{% if cell %}{{ cell.text }}
<span class="tiny{{ '' if cell.complete else ' few' }}">{{ cell.counts }}</span>{% else %}-{% endif %}</td>{% endfor %}
{% if seeds %}<td class="n">{{ row.seeds }}</td>{% endif %}
<td class="n">{{ "{:,}".format(row.trainable) }}</td><td class="n">{{ "%.0f" | format(row.seconds) }}</td></tr>
{% endfor %}</table></div>
"""
_COMPARISON = (
    _SCORES
    + """<p class="small">Percent, and ranks (MdR, MnR); below each score the scored of the listed videos;
what could not be decoded counts as wrong.{% if hm %} HM is the harmonic mean of base and novel.{% endif %}
{% if seeds %} Several seeds: mean ± population standard deviation; HM is that of the means.{% endif %}</p>
{{ figures(pictures) }}"""
)
_RUN = (
    _SCORES
    + """<table>{% for key, value in says %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>Test sets</h2><div class="wide"><table><tr><th>set</th><th class="n">classes</th><th class="n">listed</th>
<th class="n">scored</th><th class="n">quarantined</th><th class="n">chance</th></tr>
{% for s in sets %}<tr><td>{{ s.name }}</td><td class="n">{{ s.classes or "-" }}</td><td class="n">{{ s.n_listed }}</td>
<td class="n">{{ s.n_scored }}</td><td class="n{{ ' few' if s.n_quarantined else '' }}">{{ s.n_quarantined }}</td>
<td class="n">{{ "%.1f" | format(s.chance) if s.chance is defined else "-" }}</td></tr>{% endfor %}</table></div>
{{ figures(pictures) }}
{% if unscored %}<h2>Listed but not decodable (counted as wrong)</h2><div class="wide"><table>
{% for name, uri, reason in unscored %}<tr><td>{{ name }}</td><td class="k">{{ uri }}</td><td>{{ reason }}</td></tr>
{% endfor %}</table></div>{% endif %}
<h2>Settings</h2><table>{% for key, value in settings %}<tr><td class="k">{{ key }}</td>
<td class="k">{{ value }}</td></tr>{% endfor %}</table>
<h2>Facts</h2><table>{% for key, value in facts %}<tr><td class="k">{{ key }}</td><td class="k">{{ value }}</td></tr>
{% endfor %}</table>"""
)
