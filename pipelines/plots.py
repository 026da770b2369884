"""The pictures of a report, drawn with matplotlib and written as PNG; each function returns the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

BASE, NOVEL, MEAN = "#3b6ea5", "#d98032", "#7a7a7a"


def _saved(figure: Figure, path: Path) -> Path:
    target = path.with_suffix(".png")
    figure.savefig(target, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return target


def accuracy_bars(records: Sequence[Mapping[str, Any]], labels: Sequence[str], path: Path) -> Path:
    """Base, novel and HM of each run as grouped bars, chance as a dashed line."""
    figure, axes = plt.subplots(figsize=(max(4.5, 1.7 * len(records) + 1.5), 3.6))
    x = np.arange(len(records))
    series = (
        ("base", BASE, [r["metrics"]["base"]["top1"] for r in records]),
        ("novel", NOVEL, [r["metrics"]["novel"]["top1"] for r in records]),
        ("HM", MEAN, [r["metrics"]["hm"] for r in records]),
    )
    for i, (name, colour, values) in enumerate(series):
        bars = axes.bar(x + (i - 1) * 0.26, values, 0.24, color=colour, label=name)
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    for name, colour in (("base", BASE), ("novel", NOVEL)):
        chance = records[0]["metrics"][name]["chance"]
        style = "--" if name == "base" else ":"
        axes.axhline(chance, color=colour, linewidth=1, linestyle=style, label=f"chance, {name} ({chance:.0f} %)")
    axes.set_xticks(x, labels)
    axes.set_ylabel("top-1 (%)")
    axes.set_ylim(0, min(100, max(max(values) for _, _, values in series) * 1.18))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return _saved(figure, path)


def curves(history: Sequence[Mapping[str, float]], path: Path, *, selection: str = "select") -> Path:
    """Loss terms (left) and accuracies (right) by epoch; ``selection`` says on what ``select_top1`` was measured."""
    chosen_on = "test (as published)" if selection == "test-best" else "held out"
    known = {"epoch", "lr", "seconds", "data_wait", "clips_per_second", "train_top1", "select_top1"}
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    terms = [key for key in history[0] if key not in known]
    for name in terms if len(terms) > 2 else terms[:1]:  # a single term is the loss
        left.plot(epochs, [row[name] for row in history], marker=".", label=name)
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(frameon=False, fontsize=8)
    for name, label in (("train_top1", "train (augmented)"), ("select_top1", chosen_on)):
        if name in history[0]:
            right.plot(epochs, [row[name] for row in history], marker=".", label=label)
    right.set(xlabel="epoch", ylabel="top-1 (%)")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return _saved(figure, path)


def losses(runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]], path: Path) -> Path:
    """Training loss of several runs by epoch, each the sum of its method's own terms."""
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    for label, history in runs:
        axes.plot([row["epoch"] for row in history], [row["loss"] for row in history], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="training loss, each method's own")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _saved(figure, path)


def confusion(counts: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Confusion matrix, rows normalised; class names where they can be read (up to 60 classes)."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.19 * len(classes), 3.5, 12))
    figure, axes = plt.subplots(figsize=(side + 1, side))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 60:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=6)
        axes.set_yticks(range(len(classes)), classes, fontsize=6)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, fraction=0.046, pad=0.02, label="share of the class's videos")
    return _saved(figure, path)
