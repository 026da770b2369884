"""Captions of the toy world's clips, in words that the toy CLIP knows."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from pipelines.toyworld.clips import SLOTS, Dice, ToyClass, draw_track
from pipelines.toyworld.draw import COLOURS, KINDS, SCENES
from pipelines.toyworld.words import DIRECTIONS, GERUNDS, MANNERS, SCENE_PHRASES, an

_OPENINGS = ("", "", "a video of ", "a video about ")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a clip shows; ``things`` are (colour, kind), the moving one first."""

    things: tuple[tuple[str, str], ...]
    scene: str
    manner: str
    direction: str


def shown_in(toy_class: ToyClass, key: str) -> Shown:
    """Return what ``clips.draw_clip`` shows for a class and a key, by the same numbers from the same dice."""
    dice = Dice(f"{toy_class.name}/{key}")
    appearance = toy_class.kind is not None
    manner = toy_class.manner or MANNERS[dice.below(len(MANNERS))]
    direction = toy_class.direction or list(DIRECTIONS)[dice.below(len(DIRECTIONS))]
    draw_track(manner, direction, dice)
    kinds = [KINDS[i] for i in torch.randint(len(KINDS), (SLOTS,), generator=dice.generator).tolist()]
    scene = SCENES[dice.below(len(SCENES))]
    others = 1 + dice.below(2) if appearance else dice.below(2)
    colours = [list(COLOURS)[i] for i in torch.randint(len(COLOURS), (SLOTS,), generator=dice.generator).tolist()]
    kinds[0], scene = toy_class.kind or kinds[0], toy_class.scene or scene
    things = tuple(zip(colours, kinds, strict=True))[: 1 + others]
    return Shown(things, scene, manner, direction)


def captions_of(toy_class: ToyClass, key: str, count: int) -> list[str]:
    """Return ``count`` captions of a clip, 1 to 3, the same every time; the first says all about its moving object."""
    shown, draw = shown_in(toy_class, key), random.Random(f"captions/{toy_class.name}/{key}")
    where = SCENE_PHRASES[shown.scene]
    thing, *others = (an(f"{colour} {kind}") for colour, kind in shown.things)
    pair = f"{thing} and {draw.choice(others)}" if others else thing
    partial = [f"{GERUNDS[shown.things[0][1]]} {thing} {where}", f"{pair} {where}"]
    draw.shuffle(partial)
    texts = [f"{thing} {shown.manner} {shown.direction} {where}", *partial]
    return [draw.choice(_OPENINGS) + text + draw.choice(("", ".")) for text in texts[:count]]
