"""Ranges of layers as texts ("8-12": 1-based, inclusive), and their scaling to towers of another depth."""

from __future__ import annotations

import re

from vlmodels.errors import UserError

PAPER_DEPTH = 12
"""Layers of ViT-B/16's towers; the papers count in these."""


def all_ranges(depth: int) -> tuple[str, ...]:
    """List all ranges within layers 1 to ``depth``, ordered by first and last layer: "1-1", "1-2", ..., "12-12"."""
    return tuple(f"{first}-{last}" for first in range(1, depth + 1) for last in range(first, depth + 1))


def scale_layers(text: str, depth: int, paper_depth: int = PAPER_DEPTH) -> str:
    """Scale a range, a layer or a number of layers from ``paper_depth`` layers to ``depth`` layers.

    Layer l, like a number l, becomes ``ceil(l * depth / paper_depth)``. In a deeper tower that is the last of several
    layers, so a range starts right after what layer ``first - 1`` becomes: 1-6 of 12 is 1-12 of 24. "all" and 0 stay.

    Raises:
        UserError: ``text`` is neither a range nor a number nor "all".
    """
    if text == "all" or depth == paper_depth:
        return text
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise UserError(
            f"'{text}' is neither a range nor a number of layers; write 8-12 (1-based, inclusive), 8 or all"
        )
    first = int(match[1])
    scaled_first = _scale(first, depth, paper_depth)
    if match[2] is None:
        return str(scaled_first)
    after_previous = _scale(first - 1, depth, paper_depth) + 1
    scaled_last = _scale(int(match[2]), depth, paper_depth)
    return f"{min(scaled_first, after_previous)}-{scaled_last}"


def _scale(layer: int, depth: int, paper_depth: int) -> int:
    return -(-layer * depth // paper_depth)  # integer division that rounds up
