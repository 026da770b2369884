"""The page of one run, and the page that compares several runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.plain import flatten
from pipelines.records.run_file import PREDICTIONS, RECORD, SELECTIONS, RunRecord, read
from pipelines.records.summary import (
    Column,
    Summary,
    class_names_text,
    columns_of,
    headings,
    statistics_text,
    summarise,
    views_text,
)
from pipelines.reports import decision_text
from pipelines.reports.page import TEMPLATES, Picture, file_name, write_page

if TYPE_CHECKING:
    import numpy as np


def write_run_report(folder: Path) -> Path:
    """Write ``folder/report/`` from the run's record and predictions; return the page.

    Raises:
        UserError: the record is missing or damaged.
    """
    record = read(folder / RECORD)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    summary = Summary([record])
    columns = columns_of([summary])
    pictures = [
        *_numbers(summary, columns, report),
        *_confusions(record, folder / PREDICTIONS, report),
    ]
    return write_page(
        report / "report.html",
        TEMPLATES / "run.html.j2",
        title=record.name,
        pictures=pictures,
        head=headings(columns, summary.protocol),
        rows=_rows([summary], columns, {}, {}),
        sets=_sets(record),
        about=description_of(summary),
        settings=_flat(record.config.to_json()),
        facts=_flat(record.facts.to_json()),
        decision=_decision(record, report),
        unscored=[(name, *pair) for name, pairs in record.unscored.items() for pair in pairs],
    )


def _numbers(summary: Summary, columns: Sequence[Column], report: Path) -> Iterator[Picture]:
    from pipelines.reports import score_plots

    record = summary.first
    yield Picture("Scores", score_plots.accuracy_bars([summary], [record.method], columns, report / "accuracy").name)
    if record.history:
        drawn = score_plots.curves(record.history, report / "curves", selection=record.selection)
        yield Picture("Training", drawn.name)
    sets = {name: record.metrics.tests[name] for name in record.classes}
    if any(metrics.probe for metrics in sets.values()):
        caption = "Temporal probe: does the order of frames matter?"
        yield Picture(caption, score_plots.probe_bars(sets, report / "probe").name)


def _reliability(record: RunRecord, report: Path) -> Iterator[Picture]:
    from pipelines.reports.reliability_plot import reliability

    sets = {name: one for name, one in record.decision.sets.items() if one.bins} if record.decision else {}
    if sets:
        drawn = reliability(sets, report / "reliability")
        yield Picture("Reliability: are answers right as often as their probability says?", drawn.name)


def _decision(record: RunRecord, report: Path) -> dict[str, Any] | None:
    if record.decision is None:
        return None
    return {
        "lines": list(decision_text.lines(record)),
        "head": decision_text.HEAD,
        "rows": decision_text.rows(record.decision),
        "legend": decision_text.LEGEND,
        "pictures": list(_reliability(record, report)),
    }


def _confusions(record: RunRecord, path: Path, report: Path) -> Iterator[Picture]:
    import numpy as np

    from pipelines.reports import score_plots
    from pipelines.reports.prediction_plots import predicted

    with np.load(path, allow_pickle=False) as arrays:
        for number, (name, classes) in enumerate(record.classes.items()):
            found = predicted(arrays, name)
            if found is not None:
                counts = confusion(found.targets, found.best, len(classes))
                drawn = score_plots.confusion(counts, classes, report / f"confusion_{file_name(name)}_{number}")
                yield Picture(f"Confusion, {name}", drawn.name)


def confusion(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (C,C) of true and predicted classes."""
    import numpy as np

    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    return counts


def write_comparison(
    records: Sequence[RunRecord], out: Path, *, title: str, names: Mapping[str, str], runs: Mapping[str, str]
) -> Path:
    """Write ``out/report.html`` with runs of one protocol in one table, seeds together.

    Args:
        records: records of finished runs.
        out: folder; made if it is not there.
        title: of the page.
        names: run name to what it is called instead of its method.
        runs: run name to the link of its own report.
    """
    from pipelines.reports import score_plots

    out.mkdir(parents=True, exist_ok=True)
    summaries = summarise(records)
    columns = columns_of(summaries)
    labels = [names.get(s.first.name, s.first.method) for s in summaries]
    pictures = [Picture("Scores", score_plots.accuracy_bars(summaries, labels, columns, out / "accuracy").name)]
    trained = [(n, s.first.history) for n, s in zip(labels, summaries, strict=True) if s.first.history]
    if trained:
        pictures.append(Picture("Loss", score_plots.losses(trained, out / "losses").name))
    return write_page(
        out / "report.html",
        TEMPLATES / "comparison.html.j2",
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
            "label": names.get(s.first.name, s.first.method),
            "link": links.get(s.first.name),
            "cells": [s.cells.get(column) for column in columns],
            "seeds": len(s.records),
            "trainable": s.trainable,
            "seconds": s.seconds,
        }
        for s in summaries
    ]


def description_of(summary: Summary) -> list[tuple[str, str]]:
    """Return what a reader must know of a run to read its scores: method, data, views, choice of the epoch, notes."""
    record = summary.first
    preset = f", preset {record.preset}" if record.preset else ""
    start = [("started from", summary.started_from)] if summary.started_from else []
    names = class_names_text(record)
    lines = [
        ("method", f"{record.method}{preset}"),
        ("backbone", f"{summary.backbone}, weights {record.config.backbone.pretrained or 'random'}"),
        ("frames normalised by", statistics_text(record)),
        ("data", f"{record.dataset}: {record.facts.split_source}"),
        *([("class names", names)] if names else []),
        ("views", f"{views_text(record)} a video, {record.scoring.average} averaged over views"),
        *start,
        ("epoch kept", _epoch_kept(record, started=bool(start))),
        ("seed", str(record.seed)),
    ]
    return lines + [("note", note) for note in record.facts.notes]


def _epoch_kept(record: RunRecord, *, started: bool) -> str:
    if record.history:
        return f"{record.epoch_kept} of {len(record.history)}: {SELECTIONS[record.selection]}"
    return "that of the start" if started else "nothing was trained"


def _sets(record: RunRecord) -> list[dict[str, Any]]:
    return [
        {"name": name, "classes": len(classes), "metrics": record.metrics.tests[name]}
        for name, classes in record.classes.items()
    ]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(flatten(values).items())
