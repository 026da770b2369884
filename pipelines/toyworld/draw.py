"""Draws the toy world: flat objects on simple scenes, many frames at once, at any size.

An object is a list of layers; a layer is a signed distance (negative inside; unit: the object's radius)
and a paint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


Paint: TypeAlias = "tuple[float, float, float] | float | None"
"""A colour; or a factor on the object's own colour; or None for that colour itself."""
Layers: TypeAlias = "list[tuple[Tensor, Paint]]"
Place: TypeAlias = "tuple[Tensor, Tensor]"
"""x to the right and y upwards of the object's centre, in radii."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.72, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.97, 0.90, 0.10),
    "orange": (1.00, 0.55, 0.05),
    "purple": (0.60, 0.15, 0.80),
    "white": (0.97, 0.97, 0.97),
    "black": (0.06, 0.06, 0.06),
    "pink": (1.00, 0.50, 0.75),
    "brown": (0.50, 0.28, 0.10),
}
SCENES = ("grass", "sea", "night", "desert", "snow", "street", "forest", "room")
PALE, DARK = (0.95, 0.95, 0.95), (0.10, 0.10, 0.12)


@dataclass(frozen=True, slots=True)
class Frames:
    """What N frames show; K object slots, slot 0 in front; lengths are shares of the picture's side."""

    scene: Tensor  # (N,) index into SCENES
    texture: Tensor  # (N, 8) in [0, 1]: where the horizon lies, phases of the pattern
    kind: Tensor  # (N, K) index into KINDS, -1: empty slot
    x: Tensor  # (N, K) from the left
    y: Tensor  # (N, K) from the top
    radius: Tensor  # (N, K)
    angle: Tensor  # (N, K) radians
    opacity: Tensor  # (N, K)
    colour: Tensor  # (N, K, 3)
    pan: Tensor  # (N,) shift of the background
    gain: Tensor  # (N,) brightness
    tint: Tensor  # (N, 3) colour cast
    noise: Tensor  # (N,) standard deviation of pixel noise
    rain: Tensor  # (N,) strength of slanted streaks


def _disc(at: Place, cx: float, cy: float, r: float) -> Tensor:
    return torch.hypot(at[0] - cx, at[1] - cy) - r


def _oval(at: Place, cx: float, cy: float, a: float, b: float) -> Tensor:
    return (torch.hypot((at[0] - cx) / a, (at[1] - cy) / b) - 1) * min(a, b)


def _bar(at: Place, cx: float, cy: float, a: float, b: float) -> Tensor:
    return torch.maximum((at[0] - cx).abs() - a, (at[1] - cy).abs() - b)


def _peak(at: Place, cx: float, base: float, half: float, height: float) -> Tensor:
    """Triangle standing on y = base, apex up at x = cx."""
    up = at[1] - base
    side = (height * (at[0] - cx).abs() + half * (up - height)) / math.hypot(height, half)
    return torch.maximum(-up, side)


def _any(*parts: Tensor) -> Tensor:
    return torch.stack(parts).amin(0) if len(parts) > 2 else torch.minimum(*parts)


def _but(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, -b)


def _polar(at: Place) -> tuple[Tensor, Tensor]:
    return torch.hypot(*at), torch.atan2(at[1], at[0])


def _ball(at: Place) -> Layers:
    disc = _disc(at, 0, 0, 0.85)
    return [(disc, None), (torch.maximum(disc, _bar(at, 0, 0, 1, 0.17)), PALE)]


def _box(at: Place) -> Layers:
    ribbon = _any(_bar(at, 0, 0, 0.13, 0.75), _bar(at, 0, 0.3, 0.75, 0.09))
    return [(_bar(at, 0, 0, 0.75, 0.75), None), (ribbon, 0.45)]


def _star(at: Place) -> Layers:
    r, theta = _polar(at)
    return [((r - 0.58 - 0.34 * torch.cos(5 * (theta - math.pi / 2))) * 0.6, None)]


def _ring(at: Place) -> Layers:
    return [(_disc(at, 0, 0, 0.68).abs() - 0.2, None)]


def _heart(at: Place) -> Layers:
    x, y = at
    lobes = (_disc(at, -0.4, 0.32, 0.46), _disc(at, 0.4, 0.32, 0.46))
    return [(_any(*lobes, _peak((x, -y), 0, -0.2, 0.85, 1.1)), None)]


def _car(at: Place) -> Layers:
    body = _any(_bar(at, 0, -0.15, 0.95, 0.28), _bar(at, -0.05, 0.28, 0.5, 0.25))
    wheels = (_disc(at, -0.5, -0.48, 0.26), _disc(at, 0.5, -0.48, 0.26))
    return [(body, None), (_any(*wheels, _bar(at, -0.05, 0.3, 0.36, 0.14)), DARK)]


def _boat(at: Place) -> Layers:
    x, y = at
    hull = torch.maximum(_peak((x, -y), 0, 0.2, 1.1, 1.0), _bar(at, 0, -0.5, 1, 0.32))
    sail = _any(_peak(at, 0.15, -0.1, 0.6, 1.05), _bar(at, 0, 0.2, 0.06, 0.6))
    return [(hull, None), (sail, PALE)]


def _fish(at: Place) -> Layers:
    x, y = at
    body = _any(_oval(at, 0.15, 0, 0.7, 0.42), _peak((-y, x), 0, -0.95, 0.5, 0.75))
    return [(body, None), (_disc(at, 0.5, 0.1, 0.11), PALE)]


def _bird(at: Place) -> Layers:
    left = _but(_disc(at, -0.5, -0.2, 0.55), _disc(at, -0.5, -0.42, 0.55))
    right = _but(_disc(at, 0.5, -0.2, 0.55), _disc(at, 0.5, -0.42, 0.55))
    return [(_any(_oval(at, 0, -0.1, 0.3, 0.2), left, right), None), (_disc(at, 0, -0.12, 0.1), DARK)]


def _tree(at: Place) -> Layers:
    crown = _any(_disc(at, 0, 0.3, 0.55), _disc(at, -0.35, 0.05, 0.38), _disc(at, 0.35, 0.05, 0.38))
    return [(_bar(at, 0, -0.62, 0.13, 0.33), (0.4, 0.22, 0.08)), (crown, None)]


def _house(at: Place) -> Layers:
    roof_and_door = _any(_peak(at, 0, 0.08, 0.9, 0.8), _bar(at, 0, -0.62, 0.16, 0.28))
    return [(_bar(at, 0, -0.4, 0.68, 0.5), None), (roof_and_door, (0.35, 0.12, 0.1))]


def _kite(at: Place) -> Layers:
    x, y = at
    sail = (x.abs() * 1.5 + (y - 0.25).abs() - 0.75) * 0.55
    tail = _bar((x + 0.12 * torch.sin(8 * y), y), 0, -0.72, 0.05, 0.28)
    return [(sail, None), (_any(tail, _bar(at, 0, 0.25, 0.04, 0.7)), DARK)]


def _rocket(at: Place) -> Layers:
    x, y = at
    hull = _any(_oval(at, 0, 0.15, 0.3, 0.8), _peak(at, 0, -0.6, 0.6, 0.6))
    flame = _any(_peak((x, -y), 0, 0.6, 0.24, 0.4), _disc(at, 0, 0.3, 0.13))
    return [(hull, None), (flame, (1.0, 0.75, 0.2))]


def _flower(at: Place) -> Layers:
    r, theta = _polar(at)
    petals = (r - 0.6 - 0.24 * torch.cos(6 * theta)) * 0.7
    return [(petals, None), (r - 0.27, (0.98, 0.85, 0.1))]


def _cup(at: Place) -> Layers:
    handle = _disc(at, 0.4, 0, 0.38).abs() - 0.12
    return [(_any(handle, _bar(at, -0.15, 0, 0.5, 0.7)), None), (_bar(at, -0.15, 0.6, 0.42, 0.1), DARK)]


def _umbrella(at: Place) -> Layers:
    y = at[1]
    stick = _any(_bar(at, 0, -0.4, 0.07, 0.5), _bar(at, 0.12, -0.86, 0.18, 0.07))
    return [(stick, DARK), (torch.maximum(_disc(at, 0, -0.05, 0.9), -y), None)]


_SHAPES: dict[str, Callable[[Place], Layers]] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "ring": _ring,
    "heart": _heart,
    "car": _car,
    "boat": _boat,
    "fish": _fish,
    "bird": _bird,
    "tree": _tree,
    "house": _house,
    "kite": _kite,
    "rocket": _rocket,
    "flower": _flower,
    "cup": _cup,
    "umbrella": _umbrella,
}
KINDS = tuple(_SHAPES)

_GROUNDS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {  # above, below the horizon
    "grass": ((0.55, 0.75, 0.95), (0.25, 0.60, 0.20)),
    "sea": ((0.65, 0.80, 0.90), (0.10, 0.35, 0.65)),
    "night": ((0.04, 0.05, 0.16), (0.02, 0.03, 0.08)),
    "desert": ((0.85, 0.80, 0.65), (0.88, 0.68, 0.35)),
    "snow": ((0.70, 0.76, 0.85), (0.93, 0.95, 0.98)),
    "street": ((0.50, 0.48, 0.50), (0.33, 0.33, 0.35)),
    "forest": ((0.10, 0.30, 0.14), (0.14, 0.24, 0.10)),
    "room": ((0.82, 0.74, 0.62), (0.55, 0.36, 0.20)),
}


def _pattern(scene: str, x: Tensor, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness patterns above and below the horizon; p (N, 8, 1, 1)."""

    def wave(fx: float | Tensor, fy: float | Tensor, phase: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * (fx * x + fy * y + phase))

    a, b, c = p[:, 1], p[:, 2], p[:, 3]
    match scene:
        case "grass":
            upper, lower = 0.03 * wave(2, 3, a), 0.09 * wave(15 + 6 * b, 3, a)
        case "sea":
            upper, lower = 0.03 * wave(2, 2, a), 0.10 * wave(1.5, 14 + 5 * b, c)
        case "night":
            stars = ((wave(9, 7, a) * wave(-6, 10, b) - 0.8) * 4).clamp(0, 1)
            upper, lower = stars, stars
        case "desert":
            upper, lower = 0.02 * wave(1, 2, a), 0.07 * wave(2 + b, 5, a)
        case "snow":
            upper, lower = 0.05 * wave(3, 5, a), -0.04 * wave(3 + b, 4, a).clamp(min=0)
        case "street":
            walls = 0.15 * torch.sign(wave(3 + 2 * b, 0, a)) * torch.sign(wave(0, 7, c))
            lane = ((y - 0.85).abs() < 0.03) & (wave(4, 0, a) > 0.2)
            upper, lower = walls, 0.6 * lane
        case "forest":
            trunks = 0.12 * torch.sign(wave(4 + 3 * b, 0, a)).clamp(min=-0.4)
            upper, lower = trunks, 0.08 * wave(7, 9, a)
        case _:
            paper = 0.05 * torch.sign(wave(4 + 2 * b, 0, a))
            upper, lower = paper, 0.07 * torch.sign(wave(0, 8 + 3 * b, c))
    return upper, lower


def _background(frames: Frames, x: Tensor, y: Tensor) -> Tensor:
    """(N, 3, R, R); x, y (R, R) are the pixels' places in the picture."""
    picture = x.new_empty(len(frames.scene), 3, *x.shape)
    for index in frames.scene.unique().tolist():
        rows = (frames.scene == index).nonzero().flatten()
        p = frames.texture[rows][:, :, None, None]
        shifted = x + p[:, 6] + frames.pan[rows][:, None, None]
        upper, lower = _pattern(SCENES[index], shifted, y.expand_as(shifted), p)
        below = ((y - 0.35 - 0.3 * p[:, 0]) * 12).clamp(0, 1)
        colours = torch.tensor(_GROUNDS[SCENES[index]])[:, None, :, None, None]  # (2, 1, 3, 1, 1)
        top, bottom = colours[0] + upper[:, None], colours[1] + lower[:, None]
        picture[rows] = torch.lerp(top, bottom, below[:, None])
    return picture


def _paint_slot(picture: Tensor, frames: Frames, slot: int, x: Tensor, y: Tensor) -> None:
    """Draw one object slot of every frame over ``picture`` (N, 3, R, R), in place."""
    size = x.shape[-1]
    for index in frames.kind[:, slot].unique().tolist():
        if index < 0:
            continue
        rows = (frames.kind[:, slot] == index).nonzero().flatten()
        cx, cy, radius, angle, opacity = (
            field[rows, slot][:, None, None]
            for field in (frames.x, frames.y, frames.radius, frames.angle, frames.opacity)
        )
        dx, dy = (x - cx) / radius, (cy - y) / radius
        cos, sin = torch.cos(angle), torch.sin(angle)
        own = frames.colour[rows, slot][:, :, None, None]
        view = picture[rows]
        for distance, paint in _SHAPES[KINDS[index]]((cos * dx + sin * dy, cos * dy - sin * dx)):
            cover = ((0.5 - distance * radius * size).clamp(0, 1) * opacity)[:, None]
            if isinstance(paint, tuple):
                colour = torch.tensor(paint)[:, None, None]
            else:
                colour = own if paint is None else own * paint
            view = torch.lerp(view, colour.expand_as(view), cover)
        picture[rows] = view


def draw(frames: Frames, size: int, generator: torch.Generator) -> Tensor:
    """Draw N frames as uint8 (N, size, size, 3); ``generator`` makes the pixel noise."""
    centres = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    picture = _background(frames, x, y)
    for slot in reversed(range(frames.kind.shape[1])):
        _paint_slot(picture, frames, slot, x, y)
    streaks = (torch.sin(2 * math.pi * (9 * x + 3 * y + frames.texture[:, 7, None, None])) - 0.6).clamp(min=0)
    picture += (frames.rain[:, None, None] * streaks)[:, None]
    picture *= frames.gain[:, None, None, None]
    picture += frames.tint[:, :, None, None]
    picture += frames.noise[:, None, None, None] * torch.randn(picture.shape, generator=generator)
    picture = picture.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return rearrange(picture, "frames colour height width -> frames height width colour").contiguous()
