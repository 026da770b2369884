"""Captioned still frames of the toy world: all that the toy CLIP is pretrained on. No motion, no clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from pipelines.toyworld.draw import COLOURS, KINDS, SCENES, Frames, draw
from pipelines.toyworld.words import DIRECTIONS, MANNERS, Captioner
from vlmodels.toy import TOY_CONFIG, toy_tokenizer

SIDE: int = TOY_CONFIG["vision_cfg"]["image_size"]
GRID: int = SIDE // TOY_CONFIG["vision_cfg"]["patch_size"]
CAPTIONS = 3
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Stills:
    """N frames, what is on them, and three captions of each."""

    pictures: Tensor  # (N, SIDE, SIDE, 3) uint8
    kind: Tensor  # (N,) of the object in front
    scene: Tensor  # (N,)
    colour: Tensor  # (N,) of the object in front
    place: Tensor  # (N, 3) its x, y and log radius, about unit variance
    patch_kinds: Tensor  # (N, GRID * GRID) kind seen in each patch, len(KINDS): none
    tokens: Tensor  # (N, CAPTIONS, context)
    motion_words: Tensor  # (N, CAPTIONS, 2) manner and direction that a caption names, counted from 1; 0: none


def still_frames(count: int, generator: torch.Generator) -> tuple[Frames, Tensor]:
    """Draw ``count`` frames of one or two objects at random; also return the colours' indices (N, 2)."""

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    kind = torch.randint(len(KINDS), (count, 2), generator=generator)
    kind[:, 1] = torch.where(between(0, 1) < 0.4, kind[:, 1], -1)
    colours = torch.randint(len(COLOURS), (count, 2), generator=generator)
    palette = torch.tensor(list(COLOURS.values()))[colours]
    x, y = between(0.12, 0.88, 2), between(0.12, 0.88, 2)
    x[:, 1] = (x[:, 0] + between(0.3, 0.6)) % 0.9 + 0.05  # next to the first, so as not to hide it
    turned = between(0, 1, 2) < 0.15
    frames = Frames(
        scene=torch.randint(len(SCENES), (count,), generator=generator),
        texture=between(0, 1, 8),
        kind=kind,
        x=x,
        y=y,
        radius=torch.exp(between(-2.1, -1.0, 2)),
        angle=torch.where(turned, between(-3.14, 3.14, 2), between(-0.3, 0.3, 2)),
        opacity=torch.where(between(0, 1, 2) < 0.15, between(0.3, 1, 2), 1.0),
        colour=(palette + 0.06 * torch.randn(palette.shape, generator=generator)).clamp(0, 1),
        pan=torch.zeros(count),
        gain=between(0.8, 1.15),
        tint=0.03 * torch.randn(count, 3, generator=generator),
        noise=between(0, 0.04),
        rain=torch.zeros(count),
    )
    return frames, colours


def _patch_kinds(frames: Frames) -> Tensor:
    """Return the kind of the object that covers the middle of each patch, (N, GRID * GRID)."""
    middles = (torch.arange(GRID) + 0.5) / GRID
    y, x = (rearrange(axis, "row column -> (row column)") for axis in torch.meshgrid(middles, middles, indexing="ij"))
    kinds = torch.full((len(frames.scene), GRID * GRID), len(KINDS))
    for slot in (1, 0):
        near = torch.hypot(x - frames.x[:, slot, None], y - frames.y[:, slot, None])
        kind = frames.kind[:, slot, None]
        kinds = torch.where((near < frames.radius[:, slot, None]) & (kind >= 0), kind, kinds)
    return kinds


def _motion_words(caption: str) -> tuple[int, int]:
    manner = next((i for i, word in enumerate(MANNERS, 1) if word in caption), 0)
    direction = next((i for i, phrase in enumerate(DIRECTIONS, 1) if phrase in caption), 0)
    return manner, direction


def make_stills(count: int, seed: int) -> Stills:
    """Draw and caption ``count`` frames; the same seed gives the same frames and captions."""
    generator = torch.Generator().manual_seed(seed)
    captioner, tokenizer = Captioner(generator), toy_tokenizer()
    chunks: list[Stills] = []
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        frames, colours = still_frames(size, generator)
        captions = [captioner(frames, row, colours) for row in range(size) for _ in range(CAPTIONS)]
        words = torch.tensor([_motion_words(text) for text in captions])
        place = [(frames.x[:, 0] - 0.5) / 0.22, (frames.y[:, 0] - 0.5) / 0.22]
        place.append((frames.radius[:, 0].log() + 1.55) / 0.32)
        chunks.append(
            Stills(
                pictures=draw(frames, SIDE, generator),
                kind=frames.kind[:, 0],
                scene=frames.scene,
                colour=colours[:, 0],
                place=torch.stack(place, 1),
                patch_kinds=_patch_kinds(frames),
                tokens=rearrange(tokenizer(captions), "(still caption) token -> still caption token", caption=CAPTIONS),
                motion_words=rearrange(words, "(still caption) word -> still caption word", caption=CAPTIONS),
            )
        )
    return Stills(*(torch.cat([getattr(chunk, name) for chunk in chunks]) for name in Stills.__slots__))
