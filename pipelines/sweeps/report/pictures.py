"""Which pictures a sweep gets: bars of an ablation, insertion maps, parallel coordinates, fronts, learning curves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from pipelines.records.summary import Column, Scores, title
from pipelines.reports import score_plots
from pipelines.reports.page import Picture, file_name
from pipelines.reports.score_plots import bare, saved
from pipelines.sweeps.records import AblationRecord, SweepRecord, TrialRecord
from pipelines.sweeps.report.columns import key_names, main_score_column, score_columns
from pipelines.sweeps.report.plots import (
    GREY,
    RANGE,
    WIDEST,
    FrontPoint,
    axis_scales,
    draw_fronts,
    draw_insertion_maps,
    draw_parallel_coordinates,
    insertion_matrix,
    numeric_scale,
    shorten,
)
from pipelines.sweeps.report.rows import (
    SettingRow,
    finite_number,
    held_out_metric,
    metric_name,
    trials_summary,
)

_LEGEND = 8  # curves that a legend can distinguish
_LONGEST = 30  # characters of a name there


def sweep_pictures(
    sweep: SweepRecord, rows: Sequence[SettingRow], trials: Sequence[TrialRecord], out: Path
) -> list[Picture]:
    """Draw what the records are enough for into ``out``."""
    with mpl.rc_context({"text.parse_math": False}):  # users' texts are not formulas
        return [
            *_bars(sweep, rows, out),
            *_maps(sweep, trials, out),
            *_coordinates(sweep, rows, out),
            *_fronts(sweep, rows, out),
            *_curves(sweep, rows, trials, out),
        ]


# ------------------------------------------------------------------------------------------------ the ablation


@dataclass(frozen=True)
class AblationBars:
    """What the bars of an ablation show: the scores of each row and, by row number and column, printed ones."""

    labels: Sequence[str]
    summaries: Sequence[Scores]
    columns: Sequence[Column]
    printed: Mapping[tuple[int, Column], float]


def ablation_bars(sweep: SweepRecord, rows: Sequence[SettingRow]) -> AblationBars | None:
    """Return our test scores by row, and the paper's numbers where its columns have the same names.

    None without an ablation or a scored row.
    """
    scored = [(row, found) for row in rows if (found := trials_summary(sweep, row.trials))]
    if sweep.ablation is None or not scored:
        return None
    columns = [column for column, _ in score_columns(found for _, found in scored)]
    places = _printed_places(sweep.ablation, columns)
    printed = {
        (number, column): row.printed[place]
        for number, (row, _) in enumerate(scored)
        for column, place in places.items()
        if row.printed
    }
    labels = [shorten(row.label, 24) for row, _ in scored]
    return AblationBars(labels, [found for _, found in scored], columns, printed)


def _printed_places(ablation: AblationRecord, columns: Sequence[Column]) -> dict[Column, int]:
    """Find the paper's column of each of ours: named as the metric, or for top-1 as the data set."""
    places = {}
    for place, name in enumerate(ablation.columns):
        for column in columns:
            dataset = title(column.dataset) if "top1" in column.metric else ""
            metric = column.metric.removeprefix("t2v ")  # the papers print retrieval from text to video
            if _plain(name) in (_plain(metric), _plain(dataset)):
                places[column] = place
    return places


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _bars(sweep: SweepRecord, rows: Sequence[SettingRow], out: Path) -> Iterator[Picture]:
    bars, ablation = ablation_bars(sweep, rows), sweep.ablation
    if bars is None or ablation is None:
        return
    drawn = score_plots.accuracy_bars(bars.summaries, bars.labels, bars.columns, out / "ablation", printed=bars.printed)
    caption = f"{ablation.title}: scores on the test lists of {title(sweep.dataset)}, row by row"
    if bars.printed:
        caption += f"; diamonds: printed, {ablation.source}, {ablation.data}"
    yield Picture(caption, drawn.name)


# ---------------------------------------------------------------------------------------- where it is inserted


def _maps(sweep: SweepRecord, trials: Sequence[TrialRecord], out: Path) -> Iterator[Picture]:
    """Draw a map for each setting of ranges: held-out accuracy and, if trials have one, the test score next to it."""
    metric = held_out_metric(sweep)
    finished = [trial for trial in trials if trial.finished]
    keys = list(dict.fromkeys(key for trial in trials for key in trial.setting))
    for key, name in zip(keys, key_names(keys), strict=True):
        stops = _last_layers([trial.setting.get(key, "") for trial in trials], max(sweep.depths.values()))
        texts = [trial.setting.get(key, "") for trial in finished]
        values = [finite_number(trial, metric) for trial in finished]
        held_out = insertion_matrix(zip(texts, values, strict=True), max(stops, default=0))
        if len(stops) < 2 or np.isnan(held_out).all():
            continue
        maps = [(metric_name(metric, sweep), held_out)]
        if scored := _test_scores(sweep, finished):
            head, scores = scored
            maps.append((f"test {head}", insertion_matrix(zip(texts, scores, strict=True), max(stops))))
        drawn = draw_insertion_maps(maps, name, out / f"insertion_{file_name(key)}")
        means = "each cell the mean over its finished trials" if len(finished) > len(stops) else "a trial a cell"
        caption = f"{name}: {' and '.join(head for head, _ in maps)} by first and last layer, {means}; framed: the best"
        yield Picture(caption, drawn.name)


def _last_layers(texts: Sequence[str], deepest: int) -> list[int]:
    """Return the last layer of each different range within the towers."""
    matches = [match for text in set(texts) if (match := RANGE.fullmatch(text))]
    return [int(match[2]) for match in matches if int(match[2]) <= deepest]


def _test_scores(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> tuple[str, list[float | None]] | None:
    """Return the heading of the main test score, and its value of each trial."""
    summaries = [trials_summary(sweep, [trial]) for trial in trials]
    columns = score_columns(summaries)
    if not columns:
        return None
    column, head = main_score_column(columns)
    return head, [s.cells[column].mean if s and column in s.cells else None for s in summaries]


# --------------------------------------------------------------------------------------- parallel coordinates


def _coordinates(sweep: SweepRecord, rows: Sequence[SettingRow], out: Path) -> Iterator[Picture]:
    """Draw settings of a search against its objectives; an ablation's rows are no space."""
    first = sweep.objectives[0]
    finished = [row for row in rows if row.mean(first.metric) is not None]
    finished.sort(key=lambda row: row.mean(first.metric) or 0.0, reverse=first.mode == "min")  # the best is drawn last
    stopped = [row for row in rows if row.mean(first.metric) is None and row.status not in ("invalid", "not run")]
    lines = [*stopped, *finished]
    keys = _varied(lines)
    if len(keys) < 2 or len(finished) < 2 or sweep.ablation:
        return
    scales = [
        scale
        for key, name in zip(keys, key_names(keys), strict=True)
        for scale in axis_scales(name, [row.setting.get(key) for row in lines])
    ]
    for metric in (objective.metric for objective in sweep.objectives):
        values = [row.mean(metric) for row in lines]
        if any(value is not None for value in values):
            scales.append(numeric_scale(metric_name(metric, sweep), values, linear=metric.startswith("select.")))
    shade = np.linspace(0.0, 0.93, len(finished))  # the last of its yellow is too pale
    colours: list[Any] = [GREY] * len(stopped) + [plt.get_cmap("viridis")(s) for s in shade]
    drawn = draw_parallel_coordinates(scales, colours, len(stopped), out / "coordinates")
    caption = (
        f"Settings and {metric_name(first.metric, sweep)}, a line for each; colour: its rank, yellow is best, the best "
        "thick"
    )
    yield Picture(caption + ("; grey: stopped early or diverged" if stopped else ""), drawn.name)


def _varied(rows: Sequence[SettingRow]) -> list[str]:
    """Return the keys that have several values in the rows."""
    keys = dict.fromkeys(key for row in rows for key in row.setting)
    return [key for key in keys if len({row.setting.get(key) for row in rows}) > 1]


# ----------------------------------------------------------------------------------------------------- fronts


def _fronts(sweep: SweepRecord, rows: Sequence[SettingRow], out: Path) -> Iterator[Picture]:
    """Draw held-out accuracy against what a setting costs: its parameters, and the time of a step."""
    known = {metric for row in rows for metric in ("select.hm", "select.top1") if row.values(metric)}
    metric = "select.hm" if "select.hm" in known else held_out_metric(sweep)
    distinct = [(row, name) for row, name in zip(rows, _names(sweep, rows), strict=True) if not row.same_as]
    panels = []
    for cost in ("cost.trainable", "cost.step_seconds"):
        found = [(row.mean(cost), row.mean(metric), name) for row, name in distinct]
        points = [FrontPoint(x, y, name) for x, y, name in found if x and y is not None]
        if len({point.x for point in points}) > 1:
            panels.append((metric_name(cost, sweep), points))
    if not panels:
        return
    caption = f"{metric_name(metric, sweep)} against cost; joined: what no other setting beats in both"
    if any(point.name.startswith("#") for _, points in panels for point in points):
        caption += "; numbers: as in the table"
    yield Picture(caption, draw_fronts(panels, metric_name(metric, sweep), out / "front").name)


def _names(sweep: SweepRecord, rows: Sequence[SettingRow]) -> list[str]:
    """Return short names: an ablation's labels, the values of settings, or, if these are long, numbers."""
    if sweep.ablation:
        return [shorten(row.label) for row in rows]
    names = [", ".join(row.setting[key] for key in _varied(rows) if key in row.setting) for row in rows]
    return names if max(map(len, names), default=0) <= WIDEST else [f"#{place}" for place in range(1, len(rows) + 1)]


# ----------------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class _Curve:
    """Held-out accuracy of a trial: points (epoch, percent), and the name that a legend gives it."""

    trial: TrialRecord
    points: Sequence[tuple[float, float]]
    name: str


def _curves(
    sweep: SweepRecord, rows: Sequence[SettingRow], trials: Sequence[TrialRecord], out: Path
) -> Iterator[Picture]:
    """Draw held-out accuracy by epoch of every trial that has epochs."""
    curves = _named_curves(sweep, rows, trials)
    if not curves:
        return
    with_legend = len(curves) <= _LEGEND
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for place, curve in enumerate(curves):
        colour = _curve_colour(curve.trial, place, len(curves))
        label = curve.name if with_legend else None
        axes.plot(*zip(*curve.points, strict=True), color=colour, linewidth=1.2, label=label, marker=".")
        if not curve.trial.finished:
            axes.plot(*curve.points[-1], "x", color="#333", markersize=6, zorder=5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=f"{metric_name('select.top1', sweep)} (%)")
    axes.grid(alpha=0.25)
    bare(axes)
    if with_legend:
        axes.legend(frameon=False, fontsize=8, reverse=True, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption = f"{metric_name('select.top1', sweep)} by epoch"
    if not all(curve.trial.finished for curve in curves):
        caption += "; a cross: ended early"
    if with_legend and any(curve.name.startswith("#") for curve in curves):
        caption += "; numbers: as in the table"
    yield Picture(caption, saved(figure, out / "curves").name)


def _named_curves(sweep: SweepRecord, rows: Sequence[SettingRow], trials: Sequence[TrialRecord]) -> list[_Curve]:
    """Return the curves of trials with epochs, the lowest end first; several seeds are part of their names."""
    named = [(frozenset(row.setting.items()), name) for row, name in zip(rows, _names(sweep, rows), strict=True)]
    names = dict(reversed(named))  # of rows that are one setting the first
    curves = []
    for trial in trials:
        points = _points(trial.history)
        if not points:
            continue
        short = len(trial.label) <= _LONGEST and not sweep.ablation
        name = trial.label if short else names.get(frozenset(trial.setting.items()), shorten(trial.label))
        curves.append(_Curve(trial, points, f"{name}, seed {trial.seed}" if len(sweep.seeds) > 1 else name))
    return sorted(curves, key=lambda curve: curve.points[-1][1])


def _points(history: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    found = [(row["epoch"], row.get("select_top1", math.nan)) for row in history]
    return [(epoch, value) for epoch, value in found if math.isfinite(value)]


def _curve_colour(trial: TrialRecord, place: int, count: int) -> Any:
    """Return a colour of its own for few curves; of many, one by rank, and grey for trials that ended early."""
    if count <= _LEGEND:
        return score_plots.colour(place)
    return plt.get_cmap("viridis")(0.93 * place / count) if trial.finished else GREY
