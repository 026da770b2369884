"""Temporal views of a stored clip, as evaluation uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange

from vlmodels.errors import UserError
from vlmodels.sampling import Starts, view_offset, view_start

if TYPE_CHECKING:
    from pipelines.shards.clip_store import ClipStore

SAME_PLACE = 1e-6
"""Places of frames, as parts of a segment, that differ by less are the same one."""


def views(store: ClipStore, clip_id: str, clips: int) -> np.ndarray:
    """Return the deterministic temporal views of a stored clip: uint8 ``(clips, T, H, W, 3)``.

    View v of V takes, from segment i, the frame ``floor((i + (v + 0.5) / V) F / T)``; V = 1 is the centre. Dense
    views start evenly (``vlmodels.sampling.dense_indices``).

    Raises:
        UserError: the pool does not hold these frames (``view_positions``).
    """
    positions = view_positions(store.offsets, clips)
    pool = rearrange(store.frames(clip_id), "(t p) h w c -> p t h w c", p=len(store.offsets))
    return np.stack([pool[k] for k in positions])


def view_positions(offsets: Sequence[float], clips: int) -> list[int]:
    """Return, for each of ``clips`` temporal views, the number of the stored frame that it takes of every segment.

    Raises:
        UserError: the ingested pool does not hold these frames.
    """
    if isinstance(offsets, Starts):
        kind = "starts"
        wanted = [view_start(view, clips) for view in range(clips)]
        first = 0 if clips == 1 else 1  # the first start is that of the single view
    else:
        kind = "offsets"
        wanted = [view_offset(view, clips) for view in range(clips)]
        first = 0
    positions = []
    for place in wanted:
        near = [k for k in range(first, len(offsets)) if abs(offsets[k] - place) < SAME_PLACE]
        if not near:
            raise UserError(
                f"data.clips={clips} needs frames that were not stored ({kind} {list(offsets)}); ingest again with "
                f"--pool {clips}, or set data.clips=1"
            )
        positions.append(near[0])
    return positions
