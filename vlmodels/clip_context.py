"""The layout of a tower's tokens, as hooks and views get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tower = Literal["video", "text"]


@dataclass(frozen=True, slots=True)
class ClipContext:
    """The layout of the tokens that a hook gets: ``(batch * frames, N, D)``, or ``(batch, N, D)`` if joint.

    ``grid`` is (rows, columns) of patches; patch tokens follow the ``prefix`` tokens (a class token, or none) row by
    row. For text, ``batch`` counts the texts, ``frames`` is 1 and ``grid`` is (0, 0).
    """

    batch: int
    frames: int
    grid: tuple[int, int]
    layer: int
    tower: Tower
    joint: bool = False
    prefix: int = 1
