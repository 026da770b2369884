"""Tables of all methods in Markdown: sizes and costs against the printed ones, and the README's matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vlmodels import methods
from vlmodels.describe import describe
from vlmodels.published import FIGURES, Score, scores

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
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures_table() -> str:
    """Every published setting: parameters and multiply-accumulates counted here, and as printed."""
    rows = []
    for f in FIGURES:
        ours = describe(f.method, f.backbone, preset=f.preset, frames=f.frames)
        rows.append(
            [
                f"{f.method} {f.preset}",
                f.backbone,
                str(f.frames),
                f"{ours['trainable']:,}",
                f.printed_trainable,
                f"{ours['gmacs_video']:.2f}",
                f.printed_gmacs,
                "; ".join(filter(None, (f.source, f.remark))),
            ]
        )
    header = ["setting", "backbone", "frames", "trainable", "printed", "GMACs", "printed", "source, remark"]
    return markdown(header, rows)


def matrix() -> str:
    """Method x protocol x backbone: trainable parameters of the preset, and the published score below it."""
    known = scores()
    rows = []
    for name in methods.names():
        presets = methods.get(name).presets
        published = {score.backbone for score in known if score.method == name}
        for backbone in sorted(published, reverse=True) or ["ViT-B-16"]:
            counted: dict[Method.Config, dict[str, Any]] = {}  # presets often share a configuration
            for preset, setting in presets.items():
                if setting.method not in counted and preset in _PRESETS:
                    counted[setting.method] = describe(name, backbone, preset=preset)
            cost = counted[presets["full"].method]["gmacs_video"]
            cells = []
            for (_, preset), wanted in _HEADLINES.items():
                size = counted[presets[preset].method]["trainable"] if preset in presets else None
                score = _headline([s for s in known if (s.method, s.backbone) == (name, backbone)], wanted)
                cells.append(_cell(size, score))
            rows.append([f"`{name}`", backbone, f"{cost:.1f}", *cells])
    return markdown(["method", "backbone", "GMACs", *(column for column, _ in _HEADLINES)], rows)


def _headline(known: Sequence[Score], wanted: tuple[str, str, str]) -> str:
    """The score of the method's own preset, at 8 frames where the paper has several."""
    plain = ("", "both")
    found = [s for s in known if (s.protocol, s.dataset, s.metric) == wanted]
    chosen = [s for s in found if s.variant in plain or s.variant.startswith("8 frames")]
    return chosen[0].value if chosen else ""


def _cell(size: int | None, score: str) -> str:
    if size is None:
        return score or "-"
    own = f"{size / 1e6:.2f} M" if size else "0"
    return own + (f", {score}" if score else "")
