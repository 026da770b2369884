"""How the pictures of a sweep are drawn: insertion maps, parallel coordinates, fronts of cost and accuracy."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from pipelines.reports.score_plots import BASE, NOVEL, bare, saved
from pipelines.sweeps.report.columns import pareto
from pipelines.sweeps.report.rows import natural_key

RANGE = re.compile(r"(\d+)-(\d+)")
GREY = "#b9b9b9"
_ALL_NAMED = 15  # points of a front that all show their names; of more, those on the front
WIDEST = 14  # characters of a name in a picture


def shorten(text: str, width: int = WIDEST) -> str:
    """Return text on one line, cut to so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def insertion_matrix(scores: Iterable[tuple[str, float | None]], depth: int) -> np.ndarray:
    """Return the mean score of each range of layers, (depth, depth): first layer down, last across; NaN without one.

    Args:
        scores: ranges ("8-12") with scores; other texts, ranges of other layers and missing scores are left out.
        depth: layers.
    """
    cells: dict[tuple[int, int], list[float]] = {}
    for text, score in scores:
        match = RANGE.fullmatch(text)
        if match and score is not None and 1 <= int(match[1]) <= int(match[2]) <= depth:
            cells.setdefault((int(match[1]) - 1, int(match[2]) - 1), []).append(score)
    matrix = np.full((depth, depth), np.nan)
    for place, values in cells.items():
        matrix[place] = statistics.fmean(values)
    return matrix


def draw_insertion_maps(maps: Sequence[tuple[str, np.ndarray]], name: str, path: Path) -> Path:
    """Draw matrices of ``insertion_matrix`` with their headings, side by side; ``name`` is the setting."""
    depth = len(maps[0][1])
    side = float(np.clip(0.47 * depth, 2.6, 9.0))
    figure, every = plt.subplots(1, len(maps), figsize=((side + 1.2) * len(maps), side + 0.7), squeeze=False)
    for axes, (head, matrix) in zip(every.flat, maps, strict=True):
        image = axes.imshow(np.ma.masked_invalid(matrix), cmap="viridis")
        axes.set_title(head, fontsize=10)
        axes.set(xlabel=f"{name}: last", ylabel=f"{name}: first")
        axes.set_xticks(range(depth), range(1, depth + 1), fontsize=8)
        axes.set_yticks(range(depth), range(1, depth + 1), fontsize=8)
        _annotate(axes, matrix, size=8 if depth <= 12 else 5.5)
        figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
        bare(axes)
    figure.tight_layout()
    return saved(figure, path)


def _annotate(axes: Any, matrix: np.ndarray, *, size: float) -> None:
    """Write each value into its cell, and frame the best."""
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        ink = "white" if value - low <= 0.6 * (high - low) else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=size, color=ink)
        if value == high:
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=NOVEL, linewidth=2.2, clip_on=False))


class Scale(NamedTuple):
    """A vertical axis: where each line meets it (0 to 1, NaN if nowhere), and its ticks."""

    name: str
    places: list[float]
    ticks: list[tuple[float, str]]


def axis_scales(name: str, texts: Sequence[str | None]) -> list[Scale]:
    """Return one axis; of ranges two, for the first and the last layer."""
    known = [text for text in texts if text is not None]
    matches = [RANGE.fullmatch(text) for text in known]
    if all(matches):
        return [
            numeric_scale(
                f"{name}: {side}",
                [None if text is None else float(text.split("-")[end]) for text in texts],
                linear=True,
            )
            for end, side in enumerate(("first", "last"))
        ]
    if not any(natural_key(text)[0] for text in known):
        return [numeric_scale(name, [None if text is None else float(text) for text in texts])]
    kinds = sorted(set(known), key=natural_key)
    step = 1 / max(len(kinds) - 1, 1)
    places = {kind: place * step for place, kind in enumerate(kinds)}
    nudge = np.linspace(-0.02, 0.02, len(texts))  # lines through one category stay apart
    at = [math.nan if text is None else places[text] + shift for text, shift in zip(texts, nudge, strict=True)]
    return [Scale(name, at, [(places[kind], shorten(kind)) for kind in kinds[:: 1 + len(kinds) // 20]])]


def numeric_scale(name: str, values: Sequence[float | None], *, linear: bool = False) -> Scale:
    """Return an axis of numbers, logarithmic where they span a factor of 8 or more; few different ones are its ticks.

    Args:
        name: of the axis.
        values: a number of each line, one at least that is not None.
        linear: never logarithmic.
    """
    known = sorted({value for value in values if value is not None})
    log = not linear and known[0] > 0 and known[-1] >= 8 * known[0]
    low, high = ((math.log(value) if log else value) for value in (known[0], known[-1]))

    def place(value: float) -> float:
        return ((math.log(value) if log else value) - low) / (high - low or 1.0)

    marks = known
    if len(known) > 6:
        whole = all(value.is_integer() for value in known)
        locator = LogLocator(subs=(1, 2, 5) if high - low < 5 else (1,)) if log else MaxNLocator(6, integer=whole)
        marks = [mark for mark in locator.tick_values(known[0], known[-1]) if known[0] <= mark <= known[-1]]
    ticks: list[tuple[float, str]] = []
    for mark in (known[0], known[-1], *marks):  # the ends come first: they stay where ticks are too close
        if all(abs(place(mark) - other) > 0.045 for other, _ in ticks):
            ticks.append((place(mark), _short(mark)))
    return Scale(name, [math.nan if value is None else place(value) for value in values], ticks)


def _short(value: float) -> str:
    """Return a number with three digits: 0.00926, 59.7, 527k, 1.58M."""
    size, suffix = next((pair for pair in ((1e6, "M"), (1e3, "k")) if value >= pair[0]), (1.0, ""))
    return f"{value / size:.3g}{suffix}"


def draw_parallel_coordinates(scales: Sequence[Scale], colours: Sequence[Any], thin: int, path: Path) -> Path:
    """Draw lines over vertical axes; the first ``thin`` of them are thin, the last, the best, is thick."""
    figure, axes = plt.subplots(figsize=(1.6 * len(scales) + 1, 4.2))
    lines = list(zip(*(scale.places for scale in scales), strict=True))
    for place, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        width = 0.8 if place < thin else 3 if place == len(lines) - 1 else 1.3
        axes.plot(range(len(scales)), line, color=colour, linewidth=width, alpha=0.9, clip_on=False)
    for x, scale in enumerate(scales):
        axes.axvline(x, color="#333", linewidth=1)
        axes.text(x, 1.09, shorten(scale.name, 20), ha="center", va="bottom", fontsize=9)
        for y, text in scale.ticks:
            axes.plot([x - 0.02, x], [y, y], color="#333", linewidth=1)
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
            axes.text(x - 0.04, y, text, ha="right", va="center", fontsize=8, bbox=box, zorder=5)
    axes.set(xlim=(-0.1, len(scales) - 0.95), ylim=(-0.04, 1.04))
    axes.axis("off")
    return saved(figure, path)


class FrontPoint(NamedTuple):
    """A setting in a picture of cost and accuracy."""

    x: float
    y: float
    name: str


def draw_fronts(panels: Sequence[tuple[str, Sequence[FrontPoint]]], ylabel: str, path: Path) -> Path:
    """Draw accuracy against costs, a panel for each; what is dominated is grey, the others are joined."""
    figure, every = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 3.9), squeeze=False, layout="constrained")
    for axes, (xlabel, spots) in zip(every.flat, panels, strict=True):
        front = sorted(spots[place] for place in pareto([(s.x, s.y) for s in spots], ("min", "max")))
        others = [spot for spot in spots if spot not in front]
        axes.plot([s.x for s in others], [s.y for s in others], "o", color=GREY, markersize=6)
        axes.plot([s.x for s in front], [s.y for s in front], "o-", color=BASE, markersize=7)
        if max(s.x for s in spots) >= 8 * min(s.x for s in spots):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.set(xlabel=xlabel, ylabel=f"{ylabel} (%)")
        axes.margins(0.12)
        axes.grid(alpha=0.25)
        bare(axes)
        _name_spots(figure, axes, spots if len(spots) <= _ALL_NAMED else front, spots)
    return saved(figure, path)


def _name_spots(figure: Any, axes: Any, named: Sequence[FrontPoint], spots: Sequence[FrontPoint]) -> None:
    """Put each name where it covers no point and no other name; a name without a place is left out."""
    figure.canvas.draw()
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform([s[:2] for s in spots])]
    for spot in named:
        for (dx, dy), (ha, va) in _SIDES:
            text = axes.annotate(
                spot.name, spot[:2], xytext=(dx, dy), textcoords="offset points", fontsize=8, ha=ha, va=va
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


_SIDES = (
    ((-5, 3), ("right", "bottom")),  # above a front, which rises to the right
    ((5, 3), ("left", "bottom")),
    ((5, -3), ("left", "top")),
    ((-5, -3), ("right", "top")),
    ((0, 7), ("center", "bottom")),
    ((0, -7), ("center", "top")),
)
