"""The toy world's action classes and their motions: from a class and a key to the frames of one clip.

``toy-ucf`` is about appearance (which object, where), ``toy-ssv2`` about motion (in which manner, which way).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import repeat
from torch import Tensor

from pipelines.toyworld.draw import COLOURS, KINDS, SCENES, Frames, draw
from pipelines.toyworld.words import DIRECTIONS, MANNERS, action_name, motion_name
from vlmodels.errors import UserError, nearest

FRAMES, SIDE = 24, 80
SLOTS = 3
_UCF_BASE = """ball grass,kite grass,flower grass,boat sea,fish sea,rocket night,star night,bird desert,ring desert,
rocket desert,tree snow,house snow,car street,umbrella street,box street,bird forest,house forest,cup room,box room,
heart room"""
_UCF_NOVEL = """umbrella grass,box grass,kite sea,bird sea,cup sea,boat night,kite night,flower desert,fish desert,
house desert,rocket snow,heart snow,ball street,tree street,star forest,ring forest,car forest,ball room,flower room,
fish room"""
_WAYS = {  # rightwards, downwards, towards the camera
    "from left to right": (1, 0, 0),
    "from right to left": (-1, 0, 0),
    "upwards": (0, -1, 0),
    "downwards": (0, 1, 0),
    "towards the camera": (0, 0, 1),
    "away from the camera": (0, 0, -1),
}
_SSV2_NOVEL = {(0, 1), (1, 0), (2, 3), (3, 2), (4, 4), (0, 5), (1, 4), (2, 1), (3, 0), (4, 3)}


@dataclass(frozen=True, slots=True)
class ToyClass:
    """One action: ``kind`` in ``scene`` moving anyhow, or anything anywhere moving in ``manner``, ``direction``."""

    name: str
    split: Literal["base", "novel"]
    kind: str | None = None
    scene: str | None = None
    manner: str | None = None
    direction: str | None = None


def _appearance_classes() -> list[ToyClass]:
    base, novel = ([pair.split() for pair in pairs.split(",")] for pairs in (_UCF_BASE, _UCF_NOVEL))
    classes = [ToyClass(action_name(kind, scene), "base", kind, scene) for kind, scene in base]
    return classes + [ToyClass(action_name(kind, scene), "novel", kind, scene) for kind, scene in novel]


def _motion_classes() -> list[ToyClass]:
    return [
        ToyClass(
            motion_name(manner, direction),
            "novel" if (m, d) in _SSV2_NOVEL else "base",
            manner=manner,
            direction=direction,
        )
        for m, manner in enumerate(MANNERS)
        for d, direction in enumerate(DIRECTIONS)
    ]


TOY_DATASETS = {"toy-ucf": _appearance_classes(), "toy-ssv2": _motion_classes()}


def toy_classes(name: str) -> list[ToyClass]:
    """Classes of the data set ``name`` in label order.

    Raises:
        UserError: there is no toy data set of this name.
    """
    if name not in TOY_DATASETS:
        known = ", ".join(TOY_DATASETS)
        raise UserError(f"no toy data set '{name}'{nearest(name, TOY_DATASETS)}; there are: {known}")
    return TOY_DATASETS[name]


class Dice:
    """Random numbers of one clip."""

    def __init__(self, key: str) -> None:
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
        self.generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float) -> float:
        """Draw a number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def below(self, count: int) -> int:
        """Draw a whole number in [0, count)."""
        return int(torch.randint(count, (), generator=self.generator))

    def many(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw a tensor of numbers in [low, high)."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator)


@dataclass(frozen=True, slots=True)
class _Track:
    """The moving object, frame by frame; each (T,)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    opacity: Tensor


def draw_track(manner: str, direction: str, dice: Dice) -> _Track:
    """Move an object across the picture. Motions are large, and centred whatever the direction."""
    clock = torch.linspace(0, 1, FRAMES)
    start, end = dice.between(0, 0.12), dice.between(0.88, 1)
    way = ((clock - start) / (end - start)).clamp(0, 1) ** dice.between(0.8, 1.25) - 0.5
    way = way * dice.between(0.5, 0.62)
    x = torch.full((FRAMES,), dice.between(0.44, 0.56))
    y = torch.full((FRAMES,), dice.between(0.44, 0.56))
    radius = torch.full((FRAMES,), dice.between(0.15, 0.21))
    angle = torch.full((FRAMES,), dice.between(-0.3, 0.3))
    opacity = torch.ones(FRAMES)
    right, down, nearer = _WAYS[direction]
    x, y, radius = x + right * way, y + down * way, radius * torch.exp(2 * nearer * way)
    beat = clock * dice.between(2.2, 3.2) + dice.between(0, 1)
    match manner:
        case "bouncing":
            hop = 0.2 * torch.sin(math.pi * beat).abs() - 0.1
            if down:
                x = x + hop
            else:
                y = y - hop
        case "spinning":
            angle = angle + (1 - 2 * dice.below(2)) * 2 * math.pi * dice.between(0.8, 1.4) * clock
        case "flashing":
            opacity = torch.where(torch.sin(2 * math.pi * beat) > -0.2, 1.0, 0.12)
        case "fading":
            opacity = 1 - 0.85 * clock
        case _:
            pass
    return _Track(x, y, radius, angle, opacity)


def draw_clip(toy_class: ToyClass, key: str, side: int = SIDE) -> Tensor:
    """Draw the clip of ``toy_class`` that ``key`` names: uint8 (FRAMES, side, side, 3), the same every time."""
    dice = Dice(f"{toy_class.name}/{key}")
    return draw(compose(toy_class, dice), side, dice.generator)


def compose(toy_class: ToyClass, dice: Dice) -> Frames:
    """Place what a clip shows: scene, objects and their motion, frame by frame.

    Appearance clips look as if taken by another camera than the pretraining stills (dim, bluish, rain) and
    hold other objects as large as the acting one; motion clips are clean.
    """
    appearance = toy_class.kind is not None
    manner = toy_class.manner or MANNERS[dice.below(len(MANNERS))]
    direction = toy_class.direction or list(DIRECTIONS)[dice.below(len(DIRECTIONS))]
    track = draw_track(manner, direction, dice)
    kind = torch.randint(len(KINDS), (SLOTS,), generator=dice.generator)
    scene = dice.below(len(SCENES))
    others = 1 + dice.below(2) if appearance else dice.below(2)
    kind[1 + others :] = -1
    if toy_class.kind is not None and toy_class.scene is not None:
        kind[0], scene = KINDS.index(toy_class.kind), SCENES.index(toy_class.scene)
    palette = torch.tensor(list(COLOURS.values()))[torch.randint(len(COLOURS), (SLOTS,), generator=dice.generator)]
    colour = (palette + 0.06 * torch.randn(SLOTS, 3, generator=dice.generator)).clamp(0, 1)
    low, high = (0.13, 0.19) if appearance else (0.06, 0.09)

    def still(values: Tensor) -> Tensor:
        return repeat(values, "... -> frames ...", frames=FRAMES).clone()

    x, y = still(dice.many(SLOTS, low=0.15, high=0.85)), still(dice.many(SLOTS, low=0.15, high=0.85))
    radius, angle = still(dice.many(SLOTS, low=low, high=high)), still(dice.many(SLOTS, low=-0.3, high=0.3))
    opacity = torch.ones(FRAMES, SLOTS)
    x[:, 0], y[:, 0], radius[:, 0] = track.x, track.y, track.radius
    angle[:, 0], opacity[:, 0] = track.angle, track.opacity
    gain, noise = (dice.between(0.5, 0.8), 0.05) if appearance else (dice.between(0.8, 1.15), 0.03)
    cast = torch.tensor([-0.02, 0.02, 0.12]) if appearance else torch.zeros(3)
    return Frames(
        scene=torch.full((FRAMES,), scene),
        texture=still(dice.many(8)),
        kind=still(kind),
        x=x,
        y=y,
        radius=radius,
        angle=angle,
        opacity=opacity,
        colour=still(colour),
        pan=torch.linspace(-1, 1, FRAMES) * dice.between(-0.03, 0.03),
        gain=torch.full((FRAMES,), gain),
        tint=still(cast + 0.02 * torch.randn(3, generator=dice.generator)),
        noise=torch.full((FRAMES,), dice.between(0, noise)),
        rain=torch.full((FRAMES,), dice.between(0.3, 0.8) if appearance else 0.0),
    )
