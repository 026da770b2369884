"""Which pictures a sweep gets: bars of an ablation, insertion maps, parallel coordinates, fronts, learning curves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from pipelines.records.summary import title
from pipelines.reports import score_plots
from pipelines.reports.page import Picture, file_name
from pipelines.reports.score_plots import bare, saved
from pipelines.sweeps.report.columns import key_names, main_score, score_columns
from pipelines.sweeps.report.plots import (
    GREY,
    RANGE,
    WIDEST,
    Spot,
    cut,
    fronts,
    insertion_maps,
    insertion_matrix,
    numeric_scale,
    parallel_coordinates,
    scales_of,
)
from pipelines.sweeps.report.rows import Record, Tried, held_out, name_of, number, summary_of

_LEGEND = 8  # curves that a legend can tell apart
_LONGEST = 30  # characters of a name there


def sweep_pictures(sweep: Record, rows: Sequence[Tried], trials: Sequence[Record], out: Path) -> list[Picture]:
    """Draw what the records are enough for into ``out``."""
    with mpl.rc_context({"text.parse_math": False}):  # users' texts are no formulas
        return [
            *_bars(sweep, rows, out),
            *_maps(sweep, trials, out),
            *_coordinates(sweep, rows, out),
            *_fronts(sweep, rows, out),
            *_curves(sweep, rows, trials, out),
        ]


# ------------------------------------------------------------------------------------------------ the ablation


def _bars(sweep: Record, rows: Sequence[Tried], out: Path) -> Iterator[Picture]:
    """Our test scores by row; where the paper's columns have the same names, its numbers too."""
    scored = [(row, found) for row in rows if (found := summary_of(sweep, row.trials))]
    if not sweep["ablation"] or not scored:
        return
    columns = [column for column, _ in score_columns(s for _, s in scored)]
    places = {
        column: place
        for place, name in enumerate(sweep["ablation"]["columns"])
        for column in columns
        if _plain(name) in (_plain(column.metric), _plain(title(column.dataset)) if "top1" in column.metric else "")
    }
    told = {
        (n, column): row.printed[place]
        for n, (row, _) in enumerate(scored)
        for column, place in places.items()
        if row.printed
    }
    labels = [cut(row.label, 24) for row, _ in scored]
    drawn = score_plots.accuracy_bars([s for _, s in scored], labels, columns, out / "ablation", printed=told)
    caption = f"{sweep['ablation']['title']}: scores on the test lists of {title(sweep['dataset'])}, row by row"
    if told:
        caption += f"; diamonds: printed, {sweep['ablation']['source']}, {sweep['ablation']['data']}"
    yield Picture(caption, drawn.name)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


# ---------------------------------------------------------------------------------------- where it is inserted


def _maps(sweep: Record, trials: Sequence[Record], out: Path) -> Iterator[Picture]:
    """A map for each setting of ranges: held-out accuracy, beside it the test score if trials have one."""
    metric, deepest = held_out(sweep), max(sweep["depths"].values())
    finished = [trial for trial in trials if trial["status"] == "finished"]
    keys = list(dict.fromkeys(key for trial in trials for key in trial["setting"]))
    for key, name in zip(keys, key_names(keys), strict=True):
        ranges = {trial["setting"].get(key, "") for trial in trials}
        stops = [int(match[2]) for text in ranges if (match := RANGE.fullmatch(text)) and int(match[2]) <= deepest]
        values = [(trial["setting"].get(key, ""), number(trial, metric)) for trial in finished]
        maps = [(name_of(metric, sweep), insertion_matrix(values, max(stops, default=0)))]
        if len(stops) < 2 or np.isnan(maps[0][1]).all():
            continue
        if scored := _test_scores(sweep, finished):
            head, scores = scored
            pairs = [(trial["setting"].get(key, ""), score) for trial, score in zip(finished, scores, strict=True)]
            maps.append((f"test {head}", insertion_matrix(pairs, max(stops))))
        drawn = insertion_maps(maps, name, out / f"insertion_{file_name(key)}")
        means = "each cell the mean over its finished trials" if len(finished) > len(stops) else "a trial a cell"
        caption = f"{name}: {' and '.join(head for head, _ in maps)} by first and last layer, {means}; framed: the best"
        yield Picture(caption, drawn.name)


def _test_scores(sweep: Record, trials: Sequence[Record]) -> tuple[str, list[float | None]] | None:
    """The main test score of each trial, and what it is called."""
    summaries = [summary_of(sweep, [trial]) for trial in trials]
    columns = score_columns(summaries)
    if not columns:
        return None
    column, head = main_score(columns)
    return head, [s.cells[column].mean if s and column in s.cells else None for s in summaries]


# --------------------------------------------------------------------------------------- parallel coordinates


def _coordinates(sweep: Record, rows: Sequence[Tried], out: Path) -> Iterator[Picture]:
    """Settings of a search against its objectives; an ablation's rows are no space."""
    objectives = [objective["metric"] for objective in sweep["objectives"]]
    first, mode = objectives[0], sweep["objectives"][0]["mode"]
    finished = [row for row in rows if row.mean(first) is not None]
    finished.sort(key=lambda row: row.mean(first) or 0.0, reverse=mode == "min")  # the best is drawn last
    stopped = [row for row in rows if row.mean(first) is None and row.status not in ("invalid", "not run")]
    lines = [*stopped, *finished]
    keys = _varied(lines)
    if len(keys) < 2 or len(finished) < 2 or sweep["ablation"]:
        return
    scales = [
        scale
        for key, name in zip(keys, key_names(keys), strict=True)
        for scale in scales_of(name, [row.setting.get(key) for row in lines])
    ]
    for metric in objectives:
        values = [row.mean(metric) for row in lines]
        if any(value is not None for value in values):
            scales.append(numeric_scale(name_of(metric, sweep), values, linear=metric.startswith("select.")))
    shade = np.linspace(0.0, 0.93, len(finished))  # the last of its yellow is too pale
    colours: list[Any] = [GREY] * len(stopped) + [plt.get_cmap("viridis")(s) for s in shade]
    drawn = parallel_coordinates(scales, colours, len(stopped), out / "coordinates")
    caption = f"Settings and {name_of(first, sweep)}, a line for each; colour: its rank, yellow is best, the best thick"
    yield Picture(caption + ("; grey: stopped early or diverged" if stopped else ""), drawn.name)


def _varied(rows: Sequence[Tried]) -> list[str]:
    """Keys of which the rows have several values."""
    keys = dict.fromkeys(key for row in rows for key in row.setting)
    return [key for key in keys if len({row.setting.get(key) for row in rows}) > 1]


# ----------------------------------------------------------------------------------------------------- fronts


def _fronts(sweep: Record, rows: Sequence[Tried], out: Path) -> Iterator[Picture]:
    """Held-out accuracy against what a setting costs: its parameters, and the time of a step."""
    known = {metric for row in rows for metric in ("select.hm", "select.top1") if row.values(metric)}
    metric = "select.hm" if "select.hm" in known else held_out(sweep)
    distinct = [(row, name) for row, name in zip(rows, _names(sweep, rows), strict=True) if not row.same_as]
    panels = []
    for cost in ("cost.trainable", "cost.step_seconds"):
        found = [(row.mean(cost), row.mean(metric), name) for row, name in distinct]
        points = [Spot(x, y, name) for x, y, name in found if x and y is not None]
        if len({spot.x for spot in points}) > 1:
            panels.append((name_of(cost, sweep), points))
    if panels:
        caption = f"{name_of(metric, sweep)} against cost; joined: what no other setting beats in both"
        numbered = "" if not any(s.name.startswith("#") for _, p in panels for s in p) else "; numbers: as in the table"
        yield Picture(caption + numbered, fronts(panels, name_of(metric, sweep), out / "front").name)


def _names(sweep: Record, rows: Sequence[Tried]) -> list[str]:
    """Short names: an ablation's labels, the values of settings, or, if these are long, numbers."""
    if sweep["ablation"]:
        return [cut(row.label) for row in rows]
    names = [", ".join(row.setting[key] for key in _varied(rows) if key in row.setting) for row in rows]
    return names if max(map(len, names), default=0) <= WIDEST else [f"#{place}" for place in range(1, len(rows) + 1)]


# ----------------------------------------------------------------------------------------------------- curves


def _curves(sweep: Record, rows: Sequence[Tried], trials: Sequence[Record], out: Path) -> Iterator[Picture]:
    """Held-out accuracy by epoch of every trial that has epochs."""
    lines = [(trial, points) for trial in trials if (points := _epochs(trial["history"]))]
    if not lines:
        return
    lines.sort(key=lambda line: line[1][-1][1])
    figure, axes = plt.subplots(figsize=(7, 3.8))
    several, few = len(sweep["seeds"]) > 1, len(lines) <= _LEGEND
    named = [(frozenset(row.setting.items()), name) for row, name in zip(rows, _names(sweep, rows), strict=True)]
    names = dict(reversed(named))  # of rows that are one setting the first
    for place, (trial, points) in enumerate(lines):
        whole = trial["status"] == "finished"
        short = len(trial["label"]) <= _LONGEST and not sweep["ablation"]
        label = trial["label"] if short else names.get(frozenset(trial["setting"].items()), cut(trial["label"]))
        label += f", seed {trial['seed']}" if several else ""
        colour = (
            score_plots.colour(place) if few else plt.get_cmap("viridis")(0.93 * place / len(lines)) if whole else GREY
        )
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=label if few else None, marker=".")
        if not whole:
            axes.plot(*points[-1], "x", color="#333", markersize=6, zorder=5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=f"{name_of('select.top1', sweep)} (%)")
    axes.grid(alpha=0.25)
    bare(axes)
    if few:
        axes.legend(frameon=False, fontsize=8, reverse=True, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ended = any(trial["status"] != "finished" for trial, _ in lines)
    caption = f"{name_of('select.top1', sweep)} by epoch" + ("; a cross: ended early" if ended else "")
    if any(text.get_text().startswith("#") for text in (axes.get_legend().get_texts() if few else ())):
        caption += "; numbers: as in the table"
    yield Picture(caption, saved(figure, out / "curves").name)


def _epochs(history: Sequence[Mapping[str, float]]) -> list[tuple[float, float]]:
    found = [(row["epoch"], row.get("select_top1", math.nan)) for row in history]
    return [(epoch, value) for epoch, value in found if math.isfinite(value)]
