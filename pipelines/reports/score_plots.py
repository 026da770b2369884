"""Pictures of scores and losses, drawn with matplotlib and written as PNG; each function returns the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipelines.records.run_file import Epoch, SetMetrics
from pipelines.records.summary import Column, Scores, headings
from pipelines.storage.files import write_whole

mpl.use("Agg")
mpl.rcParams["text.parse_math"] = False  # names of users are not formulas

BASE, NOVEL, MEAN = "#3b6ea5", "#d98032", "#7a7a7a"
_COLOURS = (BASE, NOVEL, MEAN, "#5a9367", "#a5527b", "#8a6d3b", "#4c9aa8", "#b04a4a")
_WIDE = 60  # classes whose names can be read at the side of a matrix


def saved(figure: Figure, path: Path) -> Path:
    """Write ``figure`` to ``path`` with .png added, and close it."""
    target = path.with_name(f"{path.name}.png")
    try:
        write_whole(target, lambda part: figure.savefig(part, format="png", dpi=110, bbox_inches="tight"))
    finally:
        plt.close(figure)
    return target


def bare(*every: Axes) -> None:
    """Remove the upper and right spines."""
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)


def colour(number: int) -> str:
    """Return the colour of a series."""
    return _COLOURS[number % len(_COLOURS)]


def accuracy_bars(
    summaries: Sequence[Scores],
    labels: Sequence[str],
    columns: Sequence[Column],
    path: Path,
    *,
    printed: Mapping[tuple[int, Column], float] | None = None,
) -> Path:
    """Draw scores in percent of each row as grouped bars, with deviations, chance, and published scores as diamonds.

    Args:
        summaries: the rows.
        labels: what each is called.
        columns: scores of one protocol; ranks are left out.
        path: file without suffix.
        printed: published scores by row number (from 0) and column.
    """
    columns = [column for column in columns if not column.is_rank]
    figure, axes = plt.subplots(figsize=(max(5.0, 0.32 * len(summaries) * (len(columns) + 1.5) + 1.5), 3.6))
    x, width, top = np.arange(len(summaries)), 0.78 / len(columns), 0.0
    for i, (column, name) in enumerate(zip(columns, headings(columns, summaries[0].protocol), strict=True)):
        rows = [n for n, s in enumerate(summaries) if column in s.cells]
        cells = [summaries[n].cells[column] for n in rows]
        place = x[rows] + (i - (len(columns) - 1) / 2) * width
        errors = [cell.std if len(cell.values) > 1 else np.nan for cell in cells]
        means = [cell.mean for cell in cells]
        axes.bar(place, means, 0.92 * width, yerr=errors, color=colour(i), label=name, ecolor="#333")
        _values(axes, place.tolist(), means, size=8 if len(columns) < 4 else 6.5)
        theirs = [(p, value) for p, n in zip(place, rows, strict=True) if (value := (printed or {}).get((n, column)))]
        if theirs:
            style = {"markerfacecolor": "none", "color": "#111", "markersize": 5}
            axes.plot(*zip(*theirs, strict=True), "D", **style, label=None if i else "published")
        top = max(
            [top, *(m + (0 if np.isnan(e) else e) for m, e in zip(means, errors, strict=True)), *(v for _, v in theirs)]
        )
    top = max([top, *_chance_lines(axes, summaries, columns)])
    axes.set_xticks(x, labels, **({"rotation": 20, "ha": "right"} if max(map(len, labels)) * len(labels) > 60 else {}))
    axes.set_ylabel("recall (%)" if summaries[0].protocol == "retrieval" else "accuracy (%)")
    axes.set_ylim(0, min(108, max(top, 1.0) * 1.18))
    bare(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return saved(figure, path)


def _values(axes: Axes, places: Sequence[float], means: Sequence[float], *, size: float) -> None:
    """Write values inside their bars, where no published score or deviation covers them, or above low bars."""
    for place, mean in zip(places, means, strict=True):
        inside = mean > 12
        height, ink = (mean / 2, "white") if inside else (mean + 1, "#222")
        axes.text(
            place, height, f"{mean:.1f}", ha="center", va="center" if inside else "bottom", fontsize=size, color=ink
        )


def _chance_lines(axes: Axes, summaries: Sequence[Scores], columns: Sequence[Column]) -> list[float]:
    """Draw chance where it is the same for all rows; return the heights."""
    drawn = []
    for i, (column, name) in enumerate(zip(columns, headings(columns, summaries[0].protocol), strict=True)):
        known = {s.cells[column].chance for s in summaries if column in s.cells}
        chance = known.pop() if len(known) == 1 else None
        if chance is not None:
            style, label = ("--", ":", "-.")[i % 3], f"chance, {name} ({chance:.1f})"
            axes.axhline(chance, color="#222", linewidth=1, linestyle=style, label=label)
            drawn.append(chance)
    return drawn


def curves(history: Sequence[Epoch], path: Path, *, selection: str = "select") -> Path:
    """Draw loss terms (left) and accuracies (right) by epoch.

    Args:
        history: epochs of a run.
        path: file without suffix.
        selection: the run's; decides what ``select_top1`` is called.
    """
    chosen_on = "test (as published)" if selection == "test-best" else "held out"
    epochs = [epoch.epoch for epoch in history]
    rates = {"train (augmented)": [epoch.train_top1 for epoch in history]} if history[0].train_top1 is not None else {}
    if history[0].select_top1 is not None:
        rates[chosen_on] = [epoch.select_top1 for epoch in history]
    panels = 2 if rates else 1
    figure, every = plt.subplots(1, panels, figsize=(4.5 * panels, 3.2), squeeze=False)
    terms = [epoch.terms for epoch in history]
    for name in list(terms[0]) if len(terms[0]) > 2 else list(terms[0])[:1]:  # a single term is the loss
        every[0, 0].plot(epochs, [of_epoch[name] for of_epoch in terms], marker=".", label=name)
    every[0, 0].set(xlabel="epoch", ylabel="loss")
    for label, values in rates.items():
        every[0, 1].plot(epochs, values, marker=".", label=label)
        every[0, 1].set(xlabel="epoch", ylabel="top-1 (%)")
    for axes in every.flat:
        axes.legend(frameon=False, fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        bare(axes)
    return saved(figure, path)


def losses(runs: Sequence[tuple[str, Sequence[Epoch]]], path: Path) -> Path:
    """Draw the training loss of several runs by epoch, each the sum of its method's own terms."""
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    for label, history in runs:
        axes.plot([epoch.epoch for epoch in history], [epoch.loss for epoch in history], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="training loss, each method's own")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)
    bare(axes)
    return saved(figure, path)


def confusion(counts: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draw confusion counts (C,C), rows normalised; class names where they can be read (up to 60 classes)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.19 * len(classes), 3.5, 12))
    figure, axes = plt.subplots(figsize=(side + 1, side))
    image = matrix(axes, share, classes if len(classes) <= _WIDE else None, cmap="Blues", low=0)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, fraction=0.046, pad=0.02, label="share of the class's videos")
    return saved(figure, path)


def matrix(
    axes: Axes, values: np.ndarray, names: Sequence[str] | None, *, cmap: str, low: float, left: bool = True
) -> AxesImage:
    """Draw values (C,C) from ``low`` to 1 as colours; names below and, unless ``left`` is false, at the left side."""
    image = axes.imshow(values, cmap=cmap, vmin=low, vmax=1)
    if names is not None:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6, parse_math=False)
        axes.set_yticks(range(len(names)), names if left else [""] * len(names), fontsize=6, parse_math=False)
    return image


def probe_bars(metrics: Mapping[str, SetMetrics], path: Path) -> Path:
    """Draw top-1 of each test set with frames as they are, shuffled, reversed, and with a single frame."""
    probes = {name: (found.top1, found.probe) for name, found in metrics.items() if found.probe is not None}
    bars_of = {
        "as they are": [top1 for top1, _ in probes.values()],
        "shuffled": [probe.shuffled.top1 for _, probe in probes.values()],
        "reversed": [probe.reversed.top1 for _, probe in probes.values()],
        "single": [probe.single.top1 for _, probe in probes.values()],
    }
    figure, axes = plt.subplots(figsize=(max(4.5, 1.9 * len(probes) + 1.5), 3.2))
    x = np.arange(len(probes))
    for i, (order, values) in enumerate(bars_of.items()):
        bars = axes.bar(x + (i - 1.5) * 0.2, values, 0.18, color=colour(i), label=order)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_xticks(x, list(probes))
    axes.set_ylabel("top-1 (%)")
    axes.set_ylim(0, max(1.0, *bars_of["as they are"]) * 1.25)
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), title="frames", title_fontsize=8
    )
    bare(axes)
    return saved(figure, path)


class Point(NamedTuple):
    """A score at a number of shots or of trainable parameters; ``deviation`` over seeds, 0 if one."""

    x: float
    y: float
    deviation: float = 0.0


class Line(NamedTuple):
    """A method in a picture: our points and the published ones."""

    label: str
    ours: Sequence[Point]
    published: Sequence[Point] = ()


def shot_curves(lines: Sequence[Line], path: Path, *, ylabel: str = "top-1 (%)") -> Path:
    """Draw scores against training videos per class, a line for each method; hollow markers are published scores."""
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    for i, line in enumerate(lines):
        ours = sorted(line.ours)
        axes.errorbar(
            [p.x for p in ours],
            [p.y for p in ours],
            yerr=[p.deviation for p in ours] if any(p.deviation for p in ours) else None,
            color=colour(i),
            marker="o",
            markersize=5,
            capsize=2,
            label=line.label,
        )
        axes.plot(*_xy(sorted(line.published)), ":", color=colour(i), marker="o", markersize=7, markerfacecolor="none")
    shots = sorted({p.x for line in lines for p in (*line.ours, *line.published)})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [f"{k:g}" for k in shots])
    axes.minorticks_off()
    if len(shots) == 1:
        axes.set_xlim(shots[0] / 2, shots[0] * 2)
        highest = max(p.y + p.deviation for line in lines for p in (*line.ours, *line.published))
        axes.set_ylim(0, 1.1 * max(highest, 1.0))  # small differences between single points would look large
    axes.set(xlabel="training videos per class (K)", ylabel=ylabel)
    _legend(axes, any(line.published for line in lines))
    return saved(figure, path)


def parameter_scatter(lines: Sequence[Line], path: Path, *, ylabel: str) -> Path:
    """Draw scores against trainable parameters (MSTA's figure 1), log scale; no parameters: a dashed line."""
    figure, axes = plt.subplots(figsize=(5.5, 3.8))
    for i, line in enumerate(lines):
        label: str | None = line.label
        for points, hollow in ((line.ours, False), (line.published, True)):
            for p in points:
                if p.x == 0:
                    axes.axhline(p.y, color=colour(i), linestyle=":" if hollow else "--", linewidth=1.2, label=label)
                else:
                    face = "none" if hollow else colour(i)
                    error = p.deviation or None
                    style = {"fmt": "o", "markersize": 8, "markerfacecolor": face, "color": colour(i), "capsize": 2}
                    axes.errorbar([p.x], [p.y], yerr=error, label=label, **style)
                label = None
    axes.set_xscale("log")
    axes.set(xlabel="trainable parameters", ylabel=ylabel)
    sizes = [p.x for line in lines for p in (*line.ours, *line.published) if p.x]
    if sizes:
        axes.set_xlim(10 ** np.floor(np.log10(min(sizes)) - 0.15), 10 ** np.ceil(np.log10(max(sizes)) + 0.15))
    _legend(axes, any(line.published for line in lines))
    return saved(figure, path)


def _legend(axes: Axes, published: bool) -> None:
    if published:
        axes.plot([], [], "o", color="#444", markerfacecolor="none", label="published")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.grid(alpha=0.25)
    bare(axes)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.x for p in points], [p.y for p in points]
