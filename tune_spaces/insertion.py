"""Ranges of layers as texts ("8-12": 1-based, inclusive), and what they become in a tower of another depth."""

from __future__ import annotations

import re

from vlmodels.errors import UserError

PAPER_DEPTH = 12  # of ViT-B/16's towers, in which the papers count


def every_range(depth: int) -> tuple[str, ...]:
    """All ranges within layers 1 to ``depth``, ordered by first and last layer: "1-1", "1-2", ..., "12-12"."""
    return tuple(f"{start}-{stop}" for start in range(1, depth + 1) for stop in range(start, depth + 1))


def scaled(text: str, depth: int, paper_depth: int = PAPER_DEPTH) -> str:
    """A range, a layer or a number of layers of a tower of ``paper_depth`` layers, in one of ``depth``.

    Layer l, and a number l, become ``ceil(l depth / paper_depth)``. In a deeper tower that is the last of several, so
    a range starts right behind what layer ``start - 1`` became: 1-6 of 12 is 1-12 of 24. "all", and 0, stay.

    Raises:
        UserError: another text.
    """
    if text == "all" or depth == paper_depth:
        return text
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise UserError(f"'{text}' is no range and no number of layers; write 8-12 (1-based, inclusive), 8 or all")
    first, last = int(match[1]), match[2]
    if last is None:
        return str(_image(first, depth, paper_depth))
    start = min(_image(first, depth, paper_depth), _image(first - 1, depth, paper_depth) + 1)
    return f"{start}-{_image(int(last), depth, paper_depth)}"


def _image(layer: int, depth: int, paper_depth: int) -> int:
    return -(-layer * depth // paper_depth)  # rounded up
