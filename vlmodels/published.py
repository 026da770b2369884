"""Published numbers to compare ours with: sizes and costs of the papers' models, and their scores.

The scores are in ``assets/published.csv``, one value and its table in each row, and further zero-shot scores of
backbones in ``assets/published_backbones.csv``. Two tables may print the same thing, with other values: both are there,
a method's own paper or what is quoted of it first. Where the described model cannot have the printed size or cost, or a
value contradicts others, the remark says so; our numbers are counted (``vlmodels/describe.py``).
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
    printed_speed: str = ""
    source: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A published score in percent (a rank for MnR).

    Attributes:
        variant: what differs from the method's preset.
        class_names: a key of ``CLASS_NAMES``.
        remark: what contradicts the value.
    """

    method: str
    variant: str
    backbone: str
    protocol: str
    dataset: str
    metric: str
    value: str
    class_names: str
    source: str
    remark: str = ""


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


CLASS_NAMES = {
    "dataset": "the data set's",
    "rephrased": "rephrased by a language model",
    "": "not read",  # a classifier scores, or captions are ranked
}
"""Where the names in the class texts of a score come from: rephrased ones alone add 1 to 3 points."""

RIVALS = ("FROSTER", "Open-VCLIP", "TACO")
"""Variants of full tuning that are methods of their own: ``regularise``, or interpolated weights (not here)."""

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
        printed_speed="65.7 videos/s, 0.51 s a training step",
        source="MSTA table 8",
        remark="on one A100; 0.95 and 1.1 times those of the fine-tuned ViCLIP",
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
        method="finetune",
        preset="zeroshot",
        backbone=_VICLIP,
        trainable=124_306_945,
        gmacs=179.56,
        printed_speed="69.3 videos/s, 0.45 s a training step",
        source="MSTA table 8",
        remark="on one A100",
    ),
    Figure(
        method="m2clip",
        preset="full",
        backbone=_CLIP,
        trainable=16_138_136,
        gmacs=162.85,
        printed_trainable="16 M",
        printed_gmacs="214",
        source="M2-CLIP table 1",
        remark="with 520 words for Kinetics-400; no reading of the paper costs 214",
    ),
    Figure(
        method="m2clip",
        preset="full",
        backbone=_CLIP,
        trainable=16_138_136,
        gmacs=325.7,
        frames=16,
        printed_trainable="16 M",
        printed_gmacs="422",
        source="M2-CLIP table 1",
        remark="ours doubles with the frames",
    ),
    Figure(
        method="m2clip",
        preset="full",
        backbone=_CLIP,
        trainable=16_138_136,
        gmacs=651.4,
        frames=32,
        printed_trainable="16 M",
        printed_gmacs="842",
        source="M2-CLIP table 1",
        remark="ours doubles with the frames",
    ),
    Figure(
        method="m2clip",
        preset="paper",
        backbone=_CLIP,
        trainable=15_771_800,
        gmacs=162.85,
        printed_trainable="16 M",
        printed_gmacs="214",
        source="M2-CLIP table 1",
        remark="with 520 words for Kinetics-400",
    ),
    Figure(
        method="viltclip",
        preset="fewshot",
        backbone=_CLIP,
        trainable=864_512,
        gmacs=295.82,
        frames=16,
        printed_gmacs="287",
        printed_speed="TP 72.1",
        source="ViLT-CLIP table 2",
        remark="287 is X-CLIP's cost too, and that of 4 prompts; 10 are stated; TP is throughput, without a unit",
    ),
    Figure(method="viltclip", preset="b2n", backbone=_CLIP, trainable=886_016, gmacs=304.73, frames=16),
    Figure(method="viltclip", preset="retrieval", backbone=_CLIP, trainable=833_792, gmacs=289.89, frames=16),
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
        method="omniclip",
        preset="ssv2",
        backbone=_CLIP,
        trainable=20_771_996,
        gmacs=193.08,
        printed_gmacs="128",
        source="OmniCLIP table 3",
        remark="a classifier of 400 classes here, 174 on SSv2; below the frozen CLIP, as its 130",
    ),
    Figure(
        method="omniclip",
        preset="ssv2",
        backbone=_CLIP,
        trainable=20_778_140,
        gmacs=386.31,
        frames=16,
        printed_gmacs="255",
        source="OmniCLIP table 3",
        remark="below the frozen CLIP inside it, 281.0",
    ),
    Figure(
        method="st_adapter",
        preset="full",
        backbone=_CLIP,
        trainable=7_110_144,
        gmacs=151.63,
        printed_trainable="7 M",
        printed_gmacs="148",
        source="M2-CLIP table 1",
        remark="a quarter of the 607 at 32 frames is 151.8; OmniCLIP table 3 prints 489 on SSv2: 3 views of 163, which "
        "two adapters a block cost (places=both)",
    ),
    Figure(
        method="st_adapter",
        preset="full",
        backbone=_CLIP,
        trainable=7_110_144,
        gmacs=303.26,
        frames=16,
        printed_gmacs="911",
        source="OmniCLIP table 2",
        remark="3 views of 303.7, though the table says per view",
    ),
    Figure(
        method="st_adapter",
        preset="full",
        backbone=_CLIP,
        trainable=7_110_144,
        gmacs=606.51,
        frames=32,
        printed_trainable="7 M",
        printed_gmacs="607",
        source="M2-CLIP table 1",
    ),
    Figure(
        method="aim",
        preset="full",
        backbone=_CLIP,
        trainable=10_657_536,
        gmacs=202.09,
        printed_trainable="11 M",
        printed_gmacs="202",
        source="M2-CLIP table 1",
        remark="OmniCLIP table 2 prints 606, which is 3 views; its table 3 prints 208 on SSv2",
    ),
    Figure(
        method="aim",
        preset="full",
        backbone=_CLIP,
        trainable=10_675_968,
        gmacs=811.15,
        frames=32,
        printed_trainable="11 M",
        printed_gmacs="809",
        source="M2-CLIP table 1",
    ),
)


def scores() -> list[Score]:
    """Return every published score, in the order of the file."""
    with (_ASSETS / "published.csv").open(newline="", encoding="utf-8") as file:
        return [Score(**row) for row in csv.DictReader(file)]


def zero_shot_scores() -> list[ZeroShot]:
    """Return every published zero-shot score of a frozen backbone; OpenAI's weights have their QuickGELU name.

    A value that several tables print is there once.
    """
    known: dict[tuple[str, str, str], Score] = {}
    for score in scores():
        if (score.method, score.protocol, score.metric) == ("zeroshot", "zero_shot", "top1"):
            known.setdefault((score.backbone, score.dataset, score.value), score)
    quick = {_CLIP: f"{_CLIP}-quickgelu"}
    tags = {_CLIP: "openai", _VICLIP: "released"}
    own = [
        ZeroShot(quick.get(s.backbone, s.backbone), tags[s.backbone], s.dataset, s.value, s.source)
        for s in known.values()
    ]
    with (_ASSETS / "published_backbones.csv").open(newline="", encoding="utf-8") as file:
        return [*own, *(ZeroShot(**row) for row in csv.DictReader(file))]


def figure(method: str, preset: str | None, backbone: str, frames: int) -> Figure | None:
    """Return the published setting, or None; "ViT-B/16" and "ViT-B-16-quickgelu" are the same backbone."""
    wanted = (method, preset, backbone.replace("/", "-").removesuffix("-quickgelu"), frames)
    found = (f for f in FIGURES if (f.method, f.preset, f.backbone, f.frames) == wanted)
    return next(found, None)
