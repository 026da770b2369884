"""Which frames of a video are looked at: one per segment, at a fixed place inside each segment.

The published test sampling (X-CLIP, ViFi-CLIP and their descendants) takes the middle of each of T equal
segments; other deterministic views of a video take other places. Ingest stores the union of these frames,
the *pool*. Pure numpy: no decoder, no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Indices = NDArray[np.int64]


def segment_indices(n_frames: int, segments: int, offset: float = 0.5) -> Indices:
    """Return ``[segments]`` frame numbers ``floor((i + offset) * n / T)``, ascending.

    ``offset`` in [0, 1) is the place inside each segment; 0.5 is the published test sampling. With fewer
    frames than segments, frames repeat.
    """
    if n_frames < 1 or segments < 1:
        raise ValueError(f"cannot take {segments} segments of a video of {n_frames} frames")
    if not 0 <= offset < 1:
        raise ValueError(f"offset is a place inside a segment, in [0, 1), not {offset}")
    indices = np.floor((np.arange(segments) + offset) * n_frames / segments).astype(np.int64)
    return np.minimum(indices, n_frames - 1)  # an offset a rounding error below 1 would name frame n


def view_offset(view: int, views: int) -> float:
    """Return the place inside each segment that ``view`` of ``views`` looks at: ``(view + 0.5) / views``."""
    return (view + 0.5) / views


def pool_offsets(views: int) -> tuple[float, ...]:
    """Return the ascending offsets of a pool that holds ``views`` views and the published sampling (0.5)."""
    if views < 1:
        raise ValueError(f"a pool holds at least one view, not {views}")
    return tuple(sorted({view_offset(view, views) for view in range(views)} | {0.5}))


def pool_indices(n_frames: int, segments: int, offsets: Sequence[float]) -> Indices:
    """Return ``[segments * len(offsets)]`` frame numbers, ascending: for each segment, each offset in it."""
    per_offset = [segment_indices(n_frames, segments, offset) for offset in sorted(offsets)]
    return np.stack(per_offset, axis=1).reshape(-1)
