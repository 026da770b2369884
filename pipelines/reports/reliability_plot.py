"""The reliability diagram of a run (Guo et al., ICML 2017, figure 1), before and after its temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pipelines.records.decision import HELD_OUT, Bin, SetDecision
from pipelines.reports.score_plots import BASE, NOVEL, bare, saved


def reliability(sets: Mapping[str, SetDecision], path: Path) -> Path:
    """Draw the share of right answers by their probability, a panel for each set; return the file.

    A point is a bin; its area grows with the bin's clips. On the diagonal, probabilities mean what they say.

    Args:
        sets: of a decision that have bins, by name.
        path: file without suffix.
    """
    figure, every = plt.subplots(1, len(sets), figsize=(3.5 * len(sets), 3.7), squeeze=False, layout="constrained")
    for axes, (name, one) in zip(every.flat, sets.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
        _points(axes, one.bins, NOVEL, f"before ({100 * (one.ece or 0):.1f} %)")
        _points(axes, one.bins_scaled, BASE, f"after ({100 * (one.ece_scaled or 0):.1f} %)")
        title = "held out" if name == HELD_OUT else name
        axes.set_title(f"{title}, {one.known} clips", fontsize=9, parse_math=False)
        axes.set(xlabel="probability of the answer", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.legend(frameon=False, fontsize=7.5, loc="lower right", title="calibration error", title_fontsize=7.5)
        bare(axes)
    every[0, 0].set_ylabel("share of right answers")
    return saved(figure, path)


def _points(axes: Axes, bins: Sequence[Bin], colour: str, label: str) -> None:
    filled = [each for each in bins if each.clips]
    most = max(each.clips for each in filled)
    x, y = [each.confidence for each in filled], [each.accuracy for each in filled]
    axes.plot(x, y, color=colour, linewidth=1)
    axes.scatter(x, y, s=[12 + 70 * each.clips / most for each in filled], color=colour, alpha=0.75, label=label)
