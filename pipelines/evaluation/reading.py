"""Read test clips: each rank's share of the videos as views, and the frame orders of the temporal probe."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pipelines.shards.prefetch import prefetched
from pipelines.shards.views import views
from pipelines.training.parts import in_shard_order

if TYPE_CHECKING:
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore


Row = TypeVar("Row")

NORMAL = "normal"
ORDERS = ("shuffled", "reversed", "single")
"""What the temporal probe shows instead of a video: its frames in another order, or its middle frame alone."""


@dataclass(frozen=True)
class EvalSettings:
    """How one process looks at the videos that it scores.

    Attributes:
        device: where the model is.
        batch: views in one forward pass.
        clips: temporal views of a video.
        crops: spatial views of each temporal view.
        rank: of this process.
        world: number of processes that share the videos.
        precision: ``fp32``, or ``bf16`` for autocast.
    """

    device: torch.device
    batch: int
    clips: int = 1
    crops: int = 1
    rank: int = 0
    world: int = 1
    precision: str = "fp32"

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def read_views(
    store: ClipStore, examples: Sequence[Example], settings: EvalSettings
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Yield this rank's share of ``examples``, at most ``settings.batch`` views at a time.

    A share is a run of clips as they lie in the shards, so that few shards are read by two ranks.

    Yields:
        Numbers of some examples, and the frames (clips,T,H,W,3) of each.
    """
    order = in_shard_order(store, examples)
    share = order[_start(settings.rank, len(order), settings) : _start(settings.rank + 1, len(order), settings)]
    videos_at_once = max(1, settings.batch // (settings.clips * settings.crops))

    def read() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        store.fetch(store.place(examples[i].clip_id)[0] for i in share)
        for start in range(0, len(share), videos_at_once):
            numbers = share[start : start + videos_at_once]
            yield numbers, [views(store, examples[i].clip_id, settings.clips) for i in numbers]

    return prefetched(read())


def _start(rank: int, count: int, settings: EvalSettings) -> int:
    """Return where the share of ``rank`` begins among ``count`` videos."""
    return count * rank // settings.world


def reorder(clips: np.ndarray, order: str, clip_id: str) -> np.ndarray:
    """Return frames (views,T,H,W,3) in the order that the temporal probe shows.

    A clip has one shuffle of its own, the same in all views.
    """
    frames = clips.shape[1]
    if order == "reversed":
        return clips[:, ::-1].copy()
    if order == "single":
        return np.repeat(clips[:, frames // 2, None], frames, axis=1)
    if order == "shuffled":
        return clips[:, np.random.default_rng(zlib.crc32(clip_id.encode())).permutation(frames)]
    return clips


def gather_rows(rows: list[tuple[int, Row]], count: int, world: int) -> list[Row]:
    """Return the numbered rows of all ranks, in order, on every rank.

    Raises:
        RuntimeError: not every number below ``count`` has a row.
    """
    parts: list[Any] = [rows]
    if world > 1:
        parts = [None] * world
        dist.all_gather_object(parts, rows)
    found: dict[int, Row] = dict(row for part in parts for row in part)
    if len(found) != count:
        raise RuntimeError(f"{len(found)} of {count} videos were scored")
    return [found[i] for i in range(count)]
