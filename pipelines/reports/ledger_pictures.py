"""The pictures of a ledger: those that compare methods, and those of single groups of runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.find import Run
from pipelines.records.ledger import Entry, Ledger, Row, Table
from pipelines.records.run_file import RunRecord
from pipelines.records.summary import Column, Summary, title
from pipelines.reports import prediction_plots, score_plots
from pipelines.reports.page import Picture, file_name
from pipelines.reports.prediction_plots import Predicted, predicted
from pipelines.reports.run_page import confusion
from pipelines.reports.score_plots import Line, Point
from vlmodels.published import figure

_HEADLINE = {"b2n": "HM", "retrieval": "t2v R@1"}


def common(table: Table, out: Path) -> Iterator[Picture]:
    """Draw each data set of a protocol: bars or curves over shots, and scores against trainable parameters."""
    for dataset in dict.fromkeys(column.dataset for column in table.columns):
        columns = [column for column in table.columns if column.dataset == dataset]
        stem = f"{table.protocol}_{file_name(dataset)}"
        rows = [row for row in table.rows if row.cells.keys() & set(columns)]
        labels = _labels(rows)
        if table.protocol == "few_shot":
            lines = [
                _line(label, [row.cells[c] for c in columns if c in row.cells])
                for label, row in zip(labels, rows, strict=True)
            ]
            yield Picture(f"Few-shot on {title(dataset)}", score_plots.shot_curves(lines, out / f"{stem}_shots").name)
        else:
            summaries = [next(row.cells[c].summary for c in columns if c in row.cells) for row in rows]
            drawn = score_plots.accuracy_bars(
                summaries, labels, columns, out / f"{stem}_bars", printed=_published(rows, columns)
            )
            yield Picture(f"{PROTOCOLS[table.protocol].title.capitalize()} on {title(dataset)}", drawn.name)
        if len(rows) > 1:
            headline = _headline(table.protocol, columns)
            lines = [
                sized(label, row.cells[headline])
                for label, row in zip(labels, rows, strict=True)
                if headline in row.cells
            ]
            drawn = score_plots.parameter_scatter(lines, out / f"{stem}_parameters", ylabel=f"{headline.heading} (%)")
            yield Picture(f"{headline.heading} on {title(dataset)} against trainable parameters", drawn.name)


def _published(rows: Sequence[Row], columns: Sequence[Column]) -> dict[tuple[int, Column], float]:
    """Return published scores by row number and column."""
    entries = {(n, c): row.cells[c] for n, row in enumerate(rows) for c in columns if c in row.cells}
    return {place: entry.comparison.published for place, entry in entries.items() if entry.comparison is not None}


def _labels(rows: Sequence[Row]) -> list[str]:
    """Return what a picture calls the rows: the method, and more where that is not enough."""
    methods = [row.label.partition(" (")[0] for row in rows]
    labels = [m if methods.count(m) == 1 else row.label for m, row in zip(methods, rows, strict=True)]
    backbones = [row.about.partition(",")[0] for row in rows]
    if len(set(backbones)) > 1:
        labels = [f"{label}, {backbone}" for label, backbone in zip(labels, backbones, strict=True)]
    return [label if labels.count(label) == 1 else f"{label} #{n}" for n, label in enumerate(labels, 1)]


def _headline(protocol: str, columns: Sequence[Column]) -> Column:
    wanted = _HEADLINE.get(protocol)
    return next((c for c in columns if c.metric == wanted), columns[-1] if protocol == "few_shot" else columns[0])


def _line(label: str, entries: Sequence[Entry]) -> Line:
    """Return a method's scores by number of shots."""
    ours, published = [], []
    for entry in entries:
        shots, cell = float(entry.summary.shots or 0), entry.summary.cells[entry.column]
        ours.append(Point(shots, cell.mean, cell.std))
        if entry.comparison:
            published.append(Point(shots, entry.comparison.published))
    return Line(label, ours, published)


def sized(label: str, entry: Entry) -> Line:
    """Return a method's score at its size; the published one at the published setting's, where that is known."""
    summary, cell = entry.summary, entry.summary.cells[entry.column]
    ours = [Point(float(summary.trainable), cell.mean, cell.std)]
    if entry.comparison is None:
        return Line(label, ours)
    score = entry.comparison.score
    known = figure(score.method, summary.first.preset, score.backbone, summary.first.scoring.frames)
    if known is None and summary.trainable:
        return Line(label, ours)
    size = float(known.trainable if known else 0)
    return Line(label, ours, [Point(size, entry.comparison.published)])


def single(ledger: Ledger, runs: Sequence[Run], out: Path) -> dict[int, list[Picture]]:
    """Draw probe, confusion, gain over zero-shot, t-SNE and correlation of labels for each group's first seed.

    Zero-shot is a run of the same backbone on the same clips. Returns pictures by group number.
    """
    by_name = {run.record.name: run for run in runs}
    first = [by_name[summary.first.name] for summary in ledger.summaries]
    plain = [run for run in runs if run.record.method == "zeroshot"]
    read = functools.lru_cache(maxsize=4)(Run.predictions)  # many runs are compared with the same zero-shot run
    baseline = functools.partial(_zero_shot, plain, read)
    return {
        number: list(_of_group(number, summary, read(run), baseline, out))
        for number, (summary, run) in enumerate(zip(ledger.summaries, first, strict=True), 1)
    }


_Arrays = Mapping[str, np.ndarray]
_Baseline = Callable[[RunRecord, Predicted, Sequence[str]], Predicted | None]


def _of_group(number: int, summary: Summary, arrays: _Arrays, baseline: _Baseline, out: Path) -> Iterator[Picture]:
    record = summary.first
    sets = {name: record.metrics.tests[name] for name in record.classes}
    if any(metrics.probe for metrics in sets.values()):
        yield Picture("Temporal probe", score_plots.probe_bars(sets, out / f"run{number}_probe").name)
    seen = set[str]()
    for place, (name, classes) in enumerate(record.classes.items()):
        mine, dataset = predicted(arrays, name), name.partition("/")[0] if "/" in name else name
        if mine is None or not mine.fits(len(classes)) or dataset in seen:  # of several lists of a data set, the first
            continue
        seen.add(dataset)
        stem = out / f"run{number}_{file_name(name)}_{place}"
        base = baseline(record, mine, classes)
        yield from _of_set(mine, base, classes, stem, name=name, method=record.method)


def _of_set(
    mine: Predicted, base: Predicted | None, classes: Sequence[str], stem: Path, *, name: str, method: str
) -> Iterator[Picture]:
    counts = confusion(mine.targets, mine.best, len(classes))
    yield Picture(f"Confusion, {name}", score_plots.confusion(counts, classes, _part(stem, "confusion")).name)
    if base is not None:
        drawn = prediction_plots.class_gain(mine, base, classes, _part(stem, "gain"))
        yield Picture(f"Gain over zero-shot by class, {name}", drawn.name)
    flat = prediction_plots.embeddings(mine, base, classes, _part(stem, "tsne"), label=method)
    if flat is not None:
        yield Picture(f"t-SNE of video features, {name}", flat.name)
    if mine.text is not None:
        theirs = base.text if base is not None else None
        drawn = prediction_plots.label_correlation(mine.text, theirs, classes, _part(stem, "labels"), label=method)
        yield Picture(f"Correlation of label features, {name}", drawn.name)


def _part(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}_{kind}")


def _zero_shot(
    plain: Sequence[Run], read: Callable[[Run], _Arrays], record: RunRecord, mine: Predicted, classes: Sequence[str]
) -> Predicted | None:
    """Return zero-shot's predictions of the same clips among the same classes, with the same weights."""
    if record.method == "zeroshot":
        return None
    for run in plain:
        same = [(n, names) for n, names in run.record.classes.items() if sorted(names) == sorted(classes)]
        if not same or _weights(run.record) != _weights(record):
            continue
        for name, names in same:
            found = predicted(read(run), name)
            if found is None or not found.fits(len(names)):
                continue
            if (theirs := found.on(mine, names, classes)) is not None:
                return theirs
    return None


def _weights(record: RunRecord) -> tuple[str, str | None]:
    return record.config.backbone.name, record.facts.weights_digest
