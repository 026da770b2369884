"""Frame numbers of the views of a video: one frame of each segment, or one every ``stride`` frames.

*Segments*: the published test sampling (X-CLIP, ViFi-CLIP and their descendants) takes the middle of each of T
equal segments; other deterministic views take other places in the segments. *Dense* (M2-CLIP on K400): frames
``stride`` apart; the views differ in where they start. Ingest stores the union of these frames, the *pool*, segment by
segment. This file needs numpy only: neither a decoder nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Indices = NDArray[np.int64]
Sampling = Literal["segments", "dense"]


class Starts(tuple[float, ...]):
    """Starts of the dense clips of a pool, as fractions of the free room ``n - (T-1) * stride - 1``.

    The centre comes first, then the evenly spaced ones. A separate type, as other tuples hold places in segments.
    """

    __slots__ = ()


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
    """Return the place of ``view`` of ``views`` inside each segment: ``(view + 0.5) / views``."""
    return (view + 0.5) / views


def pool_offsets(views: int) -> tuple[float, ...]:
    """Return the ascending offsets of a pool with ``views`` views and the published sampling (0.5)."""
    if views < 1:
        raise ValueError(f"a pool holds at least one view, not {views}")
    return tuple(sorted({view_offset(view, views) for view in range(views)} | {0.5}))


def pool_indices(n_frames: int, segments: int, offsets: Sequence[float]) -> Indices:
    """Return ``[segments * len(offsets)]`` frame numbers, ascending: for each segment, each offset in it."""
    per_offset = [segment_indices(n_frames, segments, offset) for offset in sorted(offsets)]
    return rearrange(np.stack(per_offset), "offset segment -> (segment offset)")


def dense_indices(n_frames: int, frames: int, stride: int, view: int = 0, views: int = 1) -> Indices:
    """Return ``[frames]`` frame numbers ``stride`` apart, ascending; the last frame repeats where a video ends.

    Starts are evenly spaced from the first possible frame to the last; a single view starts in the middle. Source: the
    test sampling of M2-CLIP's release, which rounds the starts of several views (half to even) but takes the floor
    for a single one, so the middle one of three may start a frame later.
    """
    if n_frames < 1 or frames < 1 or stride < 1:
        raise ValueError(f"cannot take {frames} frames, {stride} apart, of a video of {n_frames} frames")
    room = max(0, n_frames - (frames - 1) * stride - 1)
    start = room // 2 if views == 1 else round(room * view / (views - 1))
    return np.minimum(start + stride * np.arange(frames), n_frames - 1)


def view_start(view: int, views: int) -> float:
    """Return the start of ``view`` of ``views`` as a fraction of its room: ``view / (views - 1)``, or the middle."""
    return view / (views - 1) if views > 1 else 0.5


def pool_starts(views: int) -> Starts:
    """Return the starts of a pool with ``views`` dense views and the single one in the centre."""
    if views < 1:
        raise ValueError(f"a pool holds at least one view, not {views}")
    return Starts([0.5, *(view_start(view, views) for view in range(views) if views > 1)])


def dense_pool_indices(n_frames: int, frames: int, stride: int, views: int) -> Indices:
    """Return ``[frames * len(pool_starts(views))]`` frame numbers: for each place in a clip, each start.

    They are not ascending, as the clips overlap.
    """
    clips = [dense_indices(n_frames, frames, stride)]
    clips += [dense_indices(n_frames, frames, stride, view, views) for view in range(views) if views > 1]
    return rearrange(np.stack(clips), "start place -> (place start)")


def view_indices(n_frames: int, frames: int, views: int, sampling: Sampling = "segments", stride: int = 16) -> Indices:
    """Return the frame numbers ``[views, frames]`` of the deterministic temporal views of a video."""
    if sampling == "dense":
        return np.stack([dense_indices(n_frames, frames, stride, view, views) for view in range(views)])
    return np.stack([segment_indices(n_frames, frames, view_offset(view, views)) for view in range(views)])
