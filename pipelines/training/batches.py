"""Batches for training and views for evaluation, read by rank from the memory-mapped shards.

Which clips form a global batch (``parts.py``), which frames are drawn and how a clip is augmented depend on the seed,
the epoch and the clip alone: one worker or many, resumed or not, a step sees the same numbers. Mixing alone pairs the
clips of one pass, so that it depends on the number of workers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipelines.shards.prefetch import prefetched
from pipelines.training.parts import Parts, shares
from vlmodels.errors import UserError
from vlmodels.sampling import Starts

if TYPE_CHECKING:
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore
    from pipelines.training.augment import Augment
    from pipelines.training.mixing import Mixing


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass sees. ``share``: its part of the global batch mean, times the number of workers."""

    frames: Tensor  # normalised float (B, T, 3, h, w)
    targets: Tensor  # int64 (B,), or probabilities (B, C) where labels are smoothed or mixed
    share: float
    last: bool  # the optimiser steps after it


class _HostBatch(NamedTuple):
    """A micro-batch before augmentation."""

    step: int  # of the epoch
    part: int  # of the step
    indices: list[int]  # of examples
    clips: list[np.ndarray]  # uint8 (T, H, W, 3)
    share: float
    last: bool


class TrainBatches:
    """The training clips of one rank, epoch by epoch; of ``parts`` of them it reads those of group ``rank``."""

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
        mixing: Mixing | None = None,
        parts: Parts | None = None,
    ) -> None:
        self._parts = parts or Parts.cut(store, examples, batch_size, 1)
        count, pairs = len(self._parts.members), mixing is not None and mixing.needs_pairs
        if problems := batch_problems(len(examples), batch_size, micro_batch, world, parts=count, pairs=pairs):
            raise UserError("; ".join(problems))
        self._store, self._examples, self._augment, self._mixing = store, examples, augment, mixing
        self.batch_size, self._passes = batch_size, passes_per_step(batch_size, micro_batch, world, count)
        self._rank, self._world, self._seed, self._device = rank, world, seed, device
        self.steps_per_epoch = len(examples) // batch_size  # the last partial batch is dropped, as published

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """Yield the micro-batches of this rank in ``epoch`` (0-based)."""
        return self._on_device(prefetched(self._host_batches(epoch)), epoch)

    def _host_batches(self, epoch: int) -> Iterator[_HostBatch]:
        for step, mine in enumerate(self._parts.steps(self._seed, epoch, self._rank, self._world)):
            for part, indices in enumerate(np.array_split(mine, self._passes)):
                clips = [self._draw_frames(int(i), epoch) for i in indices]
                share = len(indices) * self._world / self.batch_size
                yield _HostBatch(step, part, indices.tolist(), clips, share, part == self._passes - 1)

    def _draw_frames(self, index: int, epoch: int) -> np.ndarray:
        """One frame of every segment, uniformly among those stored (MSTA section 4.1, sparse sampling).

        Of dense clips, one start for all frames; past the end of a video the last one that the stride meets
        repeats (M2-CLIP's release), not the last frame as in tests.
        """
        clip_id = self._examples[index].clip_id
        pool, segments, per_segment = self._store.frames(clip_id), self._store.segments, len(self._store.offsets)
        random, rows = np.random.default_rng([self._seed, epoch, index]), np.arange(segments)
        if isinstance(self._store.offsets, Starts):
            rows = np.minimum(rows, (self._store.n_frames(clip_id) - 1) // self._store.stride)
            return np.ascontiguousarray(pool[rows * per_segment + random.integers(per_segment)])
        return np.ascontiguousarray(pool[rows * per_segment + random.integers(per_segment, size=segments)])

    def _on_device(self, batches: Iterable[_HostBatch], epoch: int) -> Iterator[MicroBatch]:
        for batch in batches:
            frames = torch.stack(
                [
                    self._augment(
                        torch.from_numpy(clip).to(self._device, non_blocking=True),
                        _seed(self._seed, epoch, i),
                    )
                    for i, clip in zip(batch.indices, batch.clips, strict=True)
                ]
            )
            targets = torch.tensor([self._examples[i].target for i in batch.indices], device=self._device)
            if self._mixing is not None:
                # numpy pads seeds with zeros: the 1 keeps this one apart from the seed of clip number ``step``
                seed = _seed(self._seed, epoch, batch.step, batch.part, self._rank, 1)
                frames, targets = self._mixing(frames, targets, seed)
            yield MicroBatch(frames, targets, batch.share, batch.last)


def passes_per_step(batch_size: int, micro_batch: int, world: int, parts: int = 1) -> int:
    """Micro-batches of a step: as many on every rank, none of them empty, so that DDP's collectives pair up."""
    clips = shares(batch_size, parts, world)
    return min(-(-max(clips) // (micro_batch or batch_size)), *clips)


def batch_problems(
    clips: int, batch_size: int, micro_batch: int, world: int, *, parts: int = 1, pairs: bool
) -> list[str]:
    """Why these batches cannot be made of ``clips`` training clips, each reason with the remedy.

    ``pairs``: every pass must have two clips to mix.
    """
    problems = []
    if batch_size > clips:
        problems.append(
            f"optim.batch_size={batch_size} is larger than the {clips} training clips; "
            f"set optim.batch_size to at most {clips}"
        )
    share = min(shares(batch_size, parts, world))
    if pairs and share // passes_per_step(batch_size, micro_batch, world, parts) < 2:
        remedy = f"optim.batch_size to at least {2 * world}" + (" and optim.micro_batch=0" if micro_batch == 1 else "")
        if share >= 2:
            larger = (
                m
                for m in range(micro_batch, batch_size + 1)
                if share // passes_per_step(batch_size, m, world, parts) > 1
            )
            remedy = f"optim.micro_batch={next(larger)}"
        problems.append(
            f"augment.mixup and augment.cutmix pair the clips of one pass, but optim.batch_size={batch_size} with "
            f"optim.micro_batch={micro_batch} and scale.workers={world} leaves a pass with one clip; set {remedy}, "
            "or augment.mixup=0 and augment.cutmix=0"
        )
    return problems


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
