"""Views of a stored clip that evaluation looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlmodels.errors import UserError
from vlmodels.sampling import Starts, view_offset, view_start

if TYPE_CHECKING:
    from pipelines.shards.clip_store import ClipStore


def views(store: ClipStore, clip_id: str, clips: int) -> np.ndarray:
    """Frames of the deterministic temporal views of a stored clip: uint8 ``(clips, T, H, W, 3)``.

    View v of V takes, from segment i, the frame at ``floor((i + (v + 0.5) / V) F / T)``; V = 1 is the centre. Dense
    views start evenly (``vlmodels.sampling.dense_indices``).

    Raises:
        UserError: as ``view_positions``.
    """
    pool = store.frames(clip_id)
    starts = np.arange(store.segments) * len(store.offsets)
    return np.stack([pool[starts + k] for k in view_positions(store.offsets, clips)])


def view_positions(offsets: Sequence[float], clips: int) -> list[int]:
    """Which stored frame of a segment each of ``clips`` temporal views takes.

    Raises:
        UserError: if the ingested pool does not hold these frames.
    """
    dense = isinstance(offsets, Starts)
    place, first = (view_start, int(clips > 1)) if dense else (view_offset, 0)  # the first start is the single view's
    positions = []
    for view in range(clips):
        near = (k for k, offset in enumerate(offsets) if k >= first and abs(offset - place(view, clips)) < 1e-6)
        positions.append(next(near, None))
    if None in positions:
        raise UserError(
            f"data.clips={clips} needs frames that were not stored ({'starts' if dense else 'offsets'} "
            f"{list(offsets)}); ingest again with --pool {clips}, or set data.clips=1"
        )
    return [k for k in positions if k is not None]
