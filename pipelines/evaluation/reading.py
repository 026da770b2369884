"""Scoring: every listed video once, views averaged, and the metrics that the protocols report."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch.distributed as dist

from pipelines.shards.prefetch import prefetched
from pipelines.shards.views import views
from pipelines.training.parts import in_shard_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.config.schema import DataConfig
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore


Row = TypeVar("Row")

NORMAL = "normal"
ORDERS = ("shuffled", "reversed", "single")
"""What the temporal probe shows instead of a video: its frames in another order, or its middle frame alone."""


def reorder(clips: np.ndarray, order: str, clip_id: str) -> np.ndarray:
    """Frames (views,T,H,W,3) as the temporal probe shows them; the shuffle is the clip's own, the same in all views."""
    frames = clips.shape[1]
    if order == "reversed":
        return clips[:, ::-1].copy()
    if order == "single":
        return np.repeat(clips[:, frames // 2, None], frames, axis=1)
    if order == "shuffled":
        return clips[:, np.random.default_rng(zlib.crc32(clip_id.encode())).permutation(frames)]
    return clips


def read_views(
    store: ClipStore, examples: Sequence[Example], data: DataConfig, *, batch: int, rank: int, world: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """This rank's share of ``examples``, ``batch`` views at a time: numbers, and frames (clips,T,H,W,3) of each.

    A share is a run of clips as they lie in the shards, so that few shards are read by two ranks.
    """
    order = in_shard_order(store, examples)
    mine = order[len(order) * rank // world : len(order) * (rank + 1) // world]
    at_once = max(1, batch // (data.clips * data.crops))

    def read() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        store.fetch(store.place(examples[i].clip_id)[0] for i in mine)
        for start in range(0, len(mine), at_once):
            part = mine[start : start + at_once]
            yield part, [views(store, examples[i].clip_id, data.clips) for i in part]

    return prefetched(read())


def of_all_ranks(rows: list[tuple[int, Row]], count: int, world: int) -> list[Row]:
    """Numbered rows of all ranks, in order; every rank has them all."""
    parts: list[Any] = [rows]
    if world > 1:
        parts = [None] * world
        dist.all_gather_object(parts, rows)
    found: dict[int, Row] = dict(row for part in parts for row in part)
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} videos were scored")
    return [found[i] for i in range(count)]
