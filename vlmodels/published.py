"""Published numbers to compare ours with: sizes and costs of the papers' models, and their scores.

The scores are in ``assets/published.csv``, one value and its table in each row, and further zero-shot scores of
backbones in ``assets/published_backbones.csv``. Where the described model cannot have
the printed size or cost, the remark says so; our numbers are counted (``vlmodels/describe.py``).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Size and cost of a published setting, as we count them and as the paper prints them ("" where it does not)."""

    method: str
    preset: str
    backbone: str
    trainable: int
    gmacs: float  # of the video tower, one view
    frames: int = 8
    printed_trainable: str = ""
    printed_gmacs: str = ""
    source: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A published score in percent (a rank for MnR); ``variant`` says what differs from the method's preset."""

    method: str
    variant: str
    backbone: str
    protocol: str
    dataset: str
    metric: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """A backbone's published zero-shot top-1 on a data set, in percent, with its source.

    ``tag`` names its weights; ``remark`` says what differs from CLIP's protocol, such as other class names.
    """

    backbone: str
    tag: str
    dataset: str
    value: str
    source: str
    remark: str = ""


_CLIP, _VICLIP = "ViT-B-16", "ViCLIP-B-16"
FIGURES: tuple[Figure, ...] = (
    Figure(
        method="zeroshot",
        preset="full",
        backbone=_CLIP,
        trainable=0,
        gmacs=140.51,
    ),
    Figure(
        method="zeroshot",
        preset="full",
        backbone=_VICLIP,
        trainable=0,
        gmacs=179.56,
    ),
    Figure(
        method="msta",
        preset="full",
        backbone=_VICLIP,
        trainable=8_712_192,
        gmacs=188.24,
        printed_trainable="8.7 M",
        source="MSTA table 5",
        remark="table 1 prints 128 units for this row, which would be 4.2 M: full_table1",
    ),
    Figure(
        method="msta",
        preset="b2n",
        backbone=_VICLIP,
        trainable=8_712_192,
        gmacs=188.24,
    ),
    Figure(
        method="msta",
        preset="fewshot",
        backbone=_VICLIP,
        trainable=1_744_000,
        gmacs=181.25,
        printed_trainable="1.744 M",
        source="MSTA's training logs",
    ),
    Figure(
        method="msta",
        preset="zeroshot",
        backbone=_VICLIP,
        trainable=4_185_600,
        gmacs=183.62,
    ),
    Figure(
        method="adaptformer",
        preset="full",
        backbone=_VICLIP,
        trainable=7_885_824,
        gmacs=186.97,
        printed_trainable="7.9 M",
        source="MSTA table 5",
    ),
    Figure(
        method="lora",
        preset="full",
        backbone=_VICLIP,
        trainable=9_437_184,
        gmacs=183.19,
        printed_trainable="9.4 M",
        source="MSTA table 5",
        remark="rank and places inferred from the count; 179.56 GMACs once the updates are merged for good",
    ),
    Figure(
        method="finetune",
        preset="full",
        backbone=_VICLIP,
        trainable=124_306_945,
        gmacs=179.56,
        printed_trainable="124.3 M",
        source="MSTA table 5",
        remark="all but the table of word embeddings",
    ),
    Figure(
        method="m2clip",
        preset="full",
        backbone=_CLIP,
        trainable=16_138_136,
        gmacs=162.84,
        printed_trainable="16 M",
        printed_gmacs="214",
        source="M2-CLIP table 1",
        remark="with 520 words for Kinetics-400; no reading of the paper costs 214",
    ),
    Figure(
        method="viltclip",
        preset="fewshot",
        backbone=_CLIP,
        trainable=864_512,
        gmacs=295.8,
        frames=16,
        printed_gmacs="287",
        source="ViLT-CLIP table 2",
        remark="287 is X-CLIP's cost too, and that of 4 prompts; 10 are stated",
    ),
    Figure(method="viltclip", preset="b2n", backbone=_CLIP, trainable=886_016, gmacs=304.7, frames=16),
    Figure(method="viltclip", preset="retrieval", backbone=_CLIP, trainable=833_792, gmacs=289.9, frames=16),
    Figure(
        method="omniclip",
        preset="full",
        backbone=_CLIP,
        trainable=27_263_756,
        gmacs=193.08,
        printed_gmacs="130",
        source="OmniCLIP table 2",
        remark="130 is below the frozen CLIP inside it, 140.5: a count that leaves out its attention",
    ),
    Figure(
        method="st_adapter",
        preset="full",
        backbone=_CLIP,
        trainable=7_110_144,
        gmacs=151.6,
        printed_trainable="7 M",
        printed_gmacs="148",
        source="M2-CLIP table 1",
        remark="its own paper prints 607 at 32 frames, a quarter of which is 151.8",
    ),
    Figure(
        method="aim",
        preset="full",
        backbone=_CLIP,
        trainable=10_657_536,
        gmacs=202.1,
        printed_trainable="11 M",
        printed_gmacs="202",
        source="M2-CLIP table 1",
    ),
)


def scores() -> list[Score]:
    """Return every published score, in the order of the file."""
    with (_ASSETS / "published.csv").open(newline="", encoding="utf-8") as file:
        return [Score(**row) for row in csv.DictReader(file)]


def zero_shot_scores() -> list[ZeroShot]:
    """Return every published zero-shot score of a frozen backbone; OpenAI's weights have their QuickGELU name."""
    known = [s for s in scores() if (s.method, s.protocol, s.metric) == ("zeroshot", "zero_shot", "top1")]
    quick = {_CLIP: f"{_CLIP}-quickgelu"}
    tags = {_CLIP: "openai", _VICLIP: "released"}
    found = [ZeroShot(quick.get(s.backbone, s.backbone), tags[s.backbone], s.dataset, s.value, s.source) for s in known]
    with (_ASSETS / "published_backbones.csv").open(newline="", encoding="utf-8") as file:
        return [*found, *(ZeroShot(**row) for row in csv.DictReader(file))]


def figure(method: str, preset: str | None, backbone: str, frames: int) -> Figure | None:
    """Return the published setting, or None; "ViT-B/16" and "ViT-B-16-quickgelu" are the same backbone."""
    wanted = (method, preset, backbone.replace("/", "-").removesuffix("-quickgelu"), frames)
    found = (f for f in FIGURES if (f.method, f.preset, f.backbone, f.frames) == wanted)
    return next(found, None)
