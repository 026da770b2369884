"""Batches for training and views for evaluation, read by rank from the memory-mapped shards.

Which clips form a global batch, which frames are drawn and how a clip is augmented depend on the seed, the
epoch and the clip alone: one worker or many, resumed or not, a step sees the same numbers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from vlmodels.errors import UserError
from vlmodels.sampling import view_offset

if TYPE_CHECKING:
    from pipelines.data.augment import Augment
    from pipelines.data.clipstore import ClipStore
    from pipelines.protocols import Example

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass sees. ``share``: its part of the global batch mean, times the number of workers."""

    frames: Tensor  # normalised float (B, T, 3, h, w)
    targets: Tensor  # int64 (B,)
    share: float
    last: bool  # the optimiser steps after it


class TrainBatches:
    """The training clips of one rank, epoch by epoch."""

    def __init__(
        self,
        store: ClipStore,
        examples: Sequence[Example],
        augment: Augment,
        *,
        batch_size: int,
        micro_batch: int,
        rank: int,
        world: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if batch_size > len(examples):
            raise UserError(
                f"optim.batch_size={batch_size} is larger than the {len(examples)} training clips; "
                f"set optim.batch_size to at most {len(examples)}"
            )
        self._store, self._examples, self._augment = store, examples, augment
        self.batch_size, self._micro = batch_size, micro_batch or batch_size
        self._rank, self._world, self._seed, self._device = rank, world, seed, device
        self.steps_per_epoch = len(examples) // batch_size  # the last partial batch is dropped, as published

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """Yield the micro-batches of this rank in ``epoch`` (0-based)."""
        return self._on_device(prefetched(self._host_batches(epoch)), epoch)

    def _host_batches(self, epoch: int) -> Iterator[tuple[list[int], list[np.ndarray], float, bool]]:
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._examples))
        for step in range(self.steps_per_epoch):
            mine = order[step * self.batch_size : (step + 1) * self.batch_size][self._rank :: self._world]
            # As many passes on every rank, none of them empty, so that DDP's collectives pair up.
            passes = min(-(-self.batch_size // (self._world * self._micro)), self.batch_size // self._world)
            for index, part in enumerate(np.array_split(mine, passes)):
                clips = [self._draw_frames(int(i), epoch) for i in part]
                yield (
                    list(map(int, part)),
                    clips,
                    len(part) * self._world / self.batch_size,
                    index == passes - 1,
                )

    def _draw_frames(self, index: int, epoch: int) -> np.ndarray:
        """One frame of every segment, uniformly among those stored (MSTA section 4.1, sparse sampling)."""
        pool = self._store.frames(self._examples[index].clip_id)
        segments, per_segment = self._store.segments, len(self._store.offsets)
        draw = np.random.default_rng([self._seed, epoch, index]).integers(per_segment, size=segments)
        return np.ascontiguousarray(pool[np.arange(segments) * per_segment + draw])

    def _on_device(
        self, batches: Iterable[tuple[list[int], list[np.ndarray], float, bool]], epoch: int
    ) -> Iterator[MicroBatch]:
        for indices, clips, share, last in batches:
            frames = torch.stack(
                [
                    self._augment(
                        torch.from_numpy(clip).to(self._device, non_blocking=True),
                        _seed(self._seed, epoch, i),
                    )
                    for i, clip in zip(indices, clips, strict=True)
                ]
            )
            targets = torch.tensor([self._examples[i].target for i in indices], device=self._device)
            yield MicroBatch(frames, targets, share, last)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def views(store: ClipStore, clip_id: str, clips: int) -> np.ndarray:
    """Frames of the deterministic temporal views of a stored clip: uint8 ``(clips, T, H, W, 3)``.

    View v of V takes, from segment i, the frame at ``floor((i + (v + 0.5) / V) F / T)``; V = 1 is the centre.

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
    positions = []
    for view in range(clips):
        near = (k for k, offset in enumerate(offsets) if abs(offset - view_offset(view, clips)) < 1e-6)
        positions.append(next(near, None))
    if None in positions:
        raise UserError(
            f"data.clips={clips} needs frames that were not stored (offsets {list(offsets)}); "
            f"ingest again with --pool {clips}, or set data.clips=1"
        )
    return [k for k in positions if k is not None]


def prefetched(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """Draw from ``items`` in a thread, up to ``depth`` ahead; its errors are raised here."""
    ready: queue.Queue[tuple[list[Item], BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[list[Item], BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put(([item], None)):
                    return
            put(([], StopIteration()))
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put(([], error))

    threading.Thread(target=fill, name="prefetch", daemon=True).start()
    try:
        while True:
            found, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield from found
    finally:
        closed.set()
