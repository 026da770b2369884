"""The toy world in words: names of its classes, captions of still frames, descriptions of its classes.

All words that the toy CLIP reads come from here, so that its reduced vocabulary holds all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pipelines.toyworld.draw import COLOURS, KINDS, SCENES, Frames

if TYPE_CHECKING:
    from collections.abc import Sequence


GERUNDS = {
    "ball": "kicking",
    "box": "lifting",
    "star": "watching",
    "ring": "throwing",
    "heart": "drawing",
    "car": "driving",
    "boat": "sailing",
    "fish": "catching",
    "bird": "feeding",
    "tree": "planting",
    "house": "building",
    "kite": "flying",
    "rocket": "launching",
    "flower": "growing",
    "cup": "filling",
    "umbrella": "opening",
}
SCENE_PHRASES = {
    "grass": "on the grass",
    "sea": "at sea",
    "night": "in the night sky",
    "desert": "in the desert",
    "snow": "in the snow",
    "street": "in the street",
    "forest": "in the forest",
    "room": "in a room",
}
MANNERS = ("sliding", "bouncing", "spinning", "flashing", "fading")
DIRECTIONS = {  # phrase: where the object is at first, and at last
    "from left to right": ("on the left", "on the right"),
    "from right to left": ("on the right", "on the left"),
    "upwards": ("at the bottom", "at the top"),
    "downwards": ("at the top", "at the bottom"),
    "towards the camera": ("small", "large"),
    "away from the camera": ("large", "small"),
}
_OPENINGS = ("", "", "a photo of ", "a picture of ", "a video of ", "a video of ", "a video about ")
_STEP = "a video of {what} generally involves the following step: {step}, which is a sub-step."
LARGE, SMALL = 0.24, 0.16
"""Radii above and below which a caption may call an object large or small."""


def action_name(kind: str, scene: str) -> str:
    """Name of an appearance class, such as ``sailing boat at sea``."""
    return f"{GERUNDS[kind]} {kind} {SCENE_PHRASES[scene]}"


def motion_name(manner: str, direction: str) -> str:
    """Name of a motion class, such as ``something sliding from left to right``."""
    return f"something {manner} {direction}"


def descriptions_of(name: str, *, steps: bool) -> list[str]:
    """Two sentences on the class ``name``: what one sees in it or, with ``steps``, what happens in turn."""
    first, second, *rest = name.split()
    phrase = " ".join(rest)
    if steps:
        if first == "something":
            moments = [f"the object is {place}" for place in DIRECTIONS[phrase]]
        else:
            moments = [f"the {second} is {phrase}", f"{first} the {second}"]
        return [_STEP.format(what=name, step=moment).capitalize() for moment in moments]
    if first == "something":
        return [f"A video about something {second}.", f"A video about an object moving {phrase}."]
    return [f"A video about {an(second)} {phrase}.", f"A video about {first} {an(second)}."]


def an(thing: str) -> str:
    """``thing`` with its indefinite article."""
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def place_words(x: float, y: float) -> list[str]:
    """Phrases that say where (x, y) lies in the picture; one or two."""
    words = []
    if abs(x - 0.5) > 0.12:
        words.append("on the left" if x < 0.5 else "on the right")
    if abs(y - 0.5) > 0.12:
        words.append("at the top" if y < 0.5 else "at the bottom")
    return words or ["in the middle"]


class Captioner:
    """Writes captions of still frames; draws from ``generator`` only."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def _chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self._generator)) < probability

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=self._generator))]

    def _object(self, kind: str, colour: str, radius: float) -> str:
        size = "large" if radius > LARGE else "small" if radius < SMALL else ""
        adjectives = [size] * self._chance(0.6) + [colour] * self._chance(0.5)
        return " ".join([word for word in adjectives if word] + [kind])

    def __call__(self, frames: Frames, row: int, colours: torch.Tensor) -> str:
        """Caption frame ``row``; ``colours`` (N, K) are the indices of the objects' colours.

        Motion words are spread at random over the captions: a still frame shows none, and so the model
        gets to know the words without their meaning.
        """
        kind = KINDS[int(frames.kind[row, 0])]
        colour = list(COLOURS)[int(colours[row, 0])]
        radius = float(frames.radius[row, 0])
        scene = SCENE_PHRASES[SCENES[int(frames.scene[row])]]
        places = place_words(float(frames.x[row, 0]), float(frames.y[row, 0]))
        thing = self._object(kind if self._chance(0.8) else "object", colour, radius)
        if self._chance(0.1):
            return self._step(kind, thing, scene, places, radius)
        style = float(torch.rand((), generator=self._generator))
        if style < 0.35:
            known = self._object(kind, colour, radius)
            text = f"{GERUNDS[kind]} {an(known) if self._chance(0.5) else known}"
        elif style < 0.55:
            text = f"{self._pick(['something', 'an object', an(thing)])} {self._pick((*MANNERS, 'moving'))}"
            text += f" {self._pick(list(DIRECTIONS))}" if self._chance(0.7) else ""
        elif style < 0.65:
            text = "something"
        else:
            text = an(thing)
        if int(frames.kind[row, 1]) >= 0 and self._chance(0.4):
            other = list(COLOURS)[int(colours[row, 1])]
            text += f" and a {self._object(KINDS[int(frames.kind[row, 1])], other, float(frames.radius[row, 1]))}"
        elif self._chance(0.5):
            text += " " + (" ".join(places) if self._chance(0.5) else self._pick(places))
        text += f" {scene}" if self._chance(0.65) else ""
        return self._pick(_OPENINGS) + text + "." * self._chance(0.5)

    def _step(self, kind: str, thing: str, scene: str, places: list[str], radius: float) -> str:
        size = ["large"] if radius > LARGE else ["small"] if radius < SMALL else []
        if self._chance(0.5):
            step = f"the {thing} is {self._pick([*places, *size, scene])}"
        else:
            step = f"{GERUNDS[kind]} the {kind}"
        if self._chance(0.5):
            what = f"{GERUNDS[kind]} {kind} {scene}"
        else:
            what = motion_name(self._pick(MANNERS), self._pick(list(DIRECTIONS)))
        return _STEP.format(what=what, step=step)
