"""Sizes of stored frames, and the resize that makes them: bilinear with antialiasing, on uint8.

Bilinear, as in the pipelines of the published protocols; antialiased, as a video of 1080 lines would otherwise alias
at 256.
"""

# Shapes: P frame, H W pixel row and column, h w those of the source.

from __future__ import annotations

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

GRID = 8
"""The short side is a multiple of this, and the long side of an eighth of the short side: few different shapes."""
WIDEST = 2.5
"""Frames whose long side is more than this many short sides lose their ends."""


def stored_short_side(size: int) -> int:
    """Return the short side that leaves room for crops of ``size``: the usual 256 for 224, on a grid of 8."""
    return -(-round(size * 256 / 224) // GRID) * GRID


def storage_shape(width: int, height: int, short: int) -> tuple[int, int]:
    """Return the stored ``(H, W)`` of a video of ``width`` x ``height``: its aspect on a coarse grid.

    The short side becomes ``short`` (a multiple of 8); the long side the nearest multiple of ``short / 8``,
    at most 2.5 times ``short``.
    """
    step = short // GRID
    aspect = min(max(width, height) / min(width, height), WIDEST)
    long = round(aspect * short / step) * step
    return (short, long) if width >= height else (long, short)


def resize_cover(frames: Frames, height: int, width: int) -> Frames:
    """Scale frames ``[P, h, w, 3]`` until they just cover ``height`` x ``width``, and cut both ends evenly.

    It cuts first, in whole source pixels, so it never computes a larger image.
    """
    h, w = frames.shape[1:3]
    scale = max(height / h, width / w)
    cut_h, cut_w = min(h, max(1, round(height / scale))), min(w, max(1, round(width / scale)))
    top, left = (h - cut_h) // 2, (w - cut_w) // 2
    frames = frames[:, top : top + cut_h, left : left + cut_w]
    if (cut_h, cut_w) == (height, width):
        return np.ascontiguousarray(frames)
    import torch  # late: callers that only compute shapes start faster
    from torch.nn import functional

    planes = rearrange(
        torch.from_numpy(frames), "p h w c -> p c h w"
    )  # stays channels-last in memory: the fast uint8 kernel
    sized = functional.interpolate(planes, size=(height, width), mode="bilinear", antialias=True)
    resized: Frames = rearrange(sized, "p c h w -> p h w c").contiguous().numpy()
    return resized
