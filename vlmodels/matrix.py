"""Tables of all methods in Markdown: sizes and costs next to the printed ones, and the README's matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vlmodels import methods
from vlmodels.describe import describe
from vlmodels.published import FIGURES, RIVALS, Score, scores

if TYPE_CHECKING:
    from vlmodels.methods.base import Method

_HEADLINES = {  # column, preset -> the score that stands for the protocol
    ("zero-shot", "zeroshot"): ("zero_shot", "UCF101", "top1"),
    ("few-shot", "fewshot"): ("few_shot", "HMDB51", "top1 K=16"),
    ("base-to-novel", "b2n"): ("b2n", "HMDB51", "HM"),
    ("supervised", "full"): ("supervised", "K400", "top1"),
    ("retrieval", "retrieval"): ("retrieval", "MSRVTT", "R@1"),
}
_PRESETS = {preset for _, preset in _HEADLINES}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures_table() -> str:
    """Return a table of every published setting: parameters and multiply-accumulates as counted and as printed.

    Printed speeds are of other machines, so they have no count of ours beside them.
    """
    rows = []
    for figure in FIGURES:
        counted = describe(figure.method, figure.backbone, preset=figure.preset, frames=figure.frames)
        rows.append(
            [
                f"{figure.method} {figure.preset}",
                figure.backbone,
                str(figure.frames),
                f"{counted['trainable']:,}",
                figure.printed_trainable,
                f"{counted['gmacs_video']:.2f}",
                figure.printed_gmacs,
                figure.printed_speed,
                "; ".join(filter(None, (figure.source, figure.remark))),
            ]
        )
    counts = ["trainable", "printed", "GMACs", "printed", "printed speed"]
    return markdown(["setting", "backbone", "frames", *counts, "source, remark"], rows)


def matrix() -> str:
    """Return the table method x protocol x backbone: trainable parameters of each preset, and its published score."""
    known = scores()
    rows = []
    for name in methods.names():
        backbones = {score.backbone for score in known if score.method == name and score.variant not in RIVALS}
        for backbone in sorted(backbones, reverse=True) or ["ViT-B-16"]:
            own = [score for score in known if (score.method, score.backbone) == (name, backbone)]
            rows.append(_matrix_row(name, backbone, own))
    return markdown(["method", "backbone", "GMACs", *(column for column, _ in _HEADLINES)], rows)


def _matrix_row(method: str, backbone: str, known: Sequence[Score]) -> list[str]:
    presets = methods.get(method).presets
    counted: dict[Method.Config, dict[str, Any]] = {}  # presets often share a configuration
    for preset, setting in presets.items():
        if setting.method not in counted and preset in _PRESETS:
            counted[setting.method] = describe(method, backbone, preset=preset)
    cells = []
    for (_, preset), headline in _HEADLINES.items():
        size = counted[presets[preset].method]["trainable"] if preset in presets else None
        cells.append(_cell(size, _headline_score(known, headline)))
    cost = counted[presets["full"].method]["gmacs_video"]
    return [f"`{method}`", backbone, f"{cost:.1f}", *cells]


def _headline_score(known: Sequence[Score], headline: tuple[str, str, str]) -> str:
    """Return the score of the method's own preset, at 8 frames where the paper has several; "" if there is none.

    Where papers print several values of it, all of them.
    """
    found = [score for score in known if (score.protocol, score.dataset, score.metric) == headline]
    chosen = [score for score in found if score.variant in ("", "both") or score.variant.startswith("8 frames")]
    return " / ".join(dict.fromkeys(score.value for score in chosen))


def _cell(size: int | None, score: str) -> str:
    if size is None:
        return score or "-"
    millions = f"{size / 1e6:.2f} M" if size else "0"
    return f"{millions}, {score}" if score else millions
