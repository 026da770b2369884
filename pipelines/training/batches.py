"""Make the training batches of one rank from the memory-mapped shards.

Which clips form a global batch (``parts.py``), which frames are drawn and how a clip is augmented depend on the seed,
the epoch and the clip alone: with one worker or many, resumed or not, a step sees the same numbers. Only mixing pairs
the clips of one pass, and so depends on the number of workers too.
"""

from __future__ import annotations

import math
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
    """What one forward pass sees.

    Attributes:
        frames: normalised float (B,T,3,h,w).
        targets: int64 (B,), or probabilities (B,C) where labels are smoothed or mixed.
        share: its part of the global batch mean, times the number of workers.
        last: whether the optimizer steps after it.
    """

    frames: Tensor
    targets: Tensor
    share: float
    last: bool


class _HostBatch(NamedTuple):
    """A micro-batch before augmentation."""

    step: int  # of the epoch
    part: int  # of the step
    indices: list[int]  # of examples
    clips: list[np.ndarray]  # uint8 (T, H, W, 3)
    share: float
    last: bool


class TrainBatches:
    """The training clips of one rank, epoch by epoch.

    Args:
        store: ingested data.
        examples: all training clips.
        augment: augmentation of a clip.
        batch_size: clips of a step, of all ranks together.
        micro_batch: most clips of a pass; 0: all that a rank has.
        rank: of this process, or the group of ``parts`` that it reads.
        world: number of ranks.
        seed: of all draws.
        device: where the batches go.
        mixing: MixUp, CutMix and label smoothing.
        parts: of the clips, if each is read by one rank alone.

    Raises:
        UserError: too few clips for the batch size, or for mixing.
    """

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
        self._store = store
        self._examples = examples
        self._augment = augment
        self._mixing = mixing
        self._passes = passes_per_step(batch_size, micro_batch, world, count)
        self._rank = rank
        self._world = world
        self._seed = seed
        self._device = device
        self.batch_size = batch_size
        self.steps_per_epoch = len(examples) // batch_size  # the last partial batch is dropped, as published

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """Yield the micro-batches of this rank in ``epoch`` (0-based)."""
        return self._on_device(prefetched(self._host_batches(epoch)), epoch)

    def _host_batches(self, epoch: int) -> Iterator[_HostBatch]:
        for step, mine in enumerate(self._parts.steps(self._seed, epoch, self._rank, self._world)):
            for part, indices in enumerate(np.array_split(mine, self._passes)):
                clips = [self.draw_frames(int(i), epoch) for i in indices]
                share = len(indices) * self._world / self.batch_size
                yield _HostBatch(step, part, indices.tolist(), clips, share, part == self._passes - 1)

    def draw_frames(self, index: int, epoch: int) -> np.ndarray:
        """Draw the frames (T,H,W,3) of an example: one of every segment, uniformly (MSTA section 4.1, sparse sampling).

        In dense clips one start is drawn for all frames; past the end of a video the last frame that the stride meets
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
            clips = [torch.from_numpy(clip).to(self._device, non_blocking=True) for clip in batch.clips]
            seeds = [_seed(self._seed, epoch, i) for i in batch.indices]
            frames = torch.stack([self._augment(clip, seed) for clip, seed in zip(clips, seeds, strict=True)])
            targets = torch.tensor([self._examples[i].target for i in batch.indices], device=self._device)
            if self._mixing is not None:
                # numpy pads seeds with zeros: the 1 keeps this one apart from the seed of clip number ``step``
                seed = _seed(self._seed, epoch, batch.step, batch.part, self._rank, 1)
                frames, targets = self._mixing(frames, targets, seed)
            yield MicroBatch(frames, targets, batch.share, batch.last)


def passes_per_step(batch_size: int, micro_batch: int, world: int, parts: int = 1) -> int:
    """Return the micro-batches of a step: as many on every rank, none empty, so that DDP's collectives pair up."""
    clips = shares(batch_size, parts, world)
    return min(math.ceil(max(clips) / (micro_batch or batch_size)), *clips)


def batch_problems(
    clips: int, batch_size: int, micro_batch: int, world: int, *, parts: int = 1, pairs: bool
) -> list[str]:
    """Return why these batches cannot be made, each reason with the remedy.

    Args:
        clips: training clips.
        batch_size: clips of a step.
        micro_batch: most clips of a pass; 0: all that a rank has.
        world: number of ranks.
        parts: of the clips.
        pairs: whether every pass must have two clips to mix.
    """
    problems = []
    if batch_size > clips:
        problems.append(
            f"optim.batch_size={batch_size} is larger than the {clips} training clips; "
            f"set optim.batch_size to at most {clips}"
        )
    if pairs and _fewest_clips(batch_size, micro_batch, world, parts) < 2:
        remedy = _remedy_for_pairs(batch_size, micro_batch, world, parts)
        problems.append(
            f"augment.mixup and augment.cutmix pair the clips of one pass, but optim.batch_size={batch_size} with "
            f"optim.micro_batch={micro_batch} and scale.workers={world} leaves a pass with one clip; set {remedy}, "
            "or augment.mixup=0 and augment.cutmix=0"
        )
    return problems


def _fewest_clips(batch_size: int, micro_batch: int, world: int, parts: int) -> int:
    """Return how many clips the smallest pass has."""
    return min(shares(batch_size, parts, world)) // passes_per_step(batch_size, micro_batch, world, parts)


def _remedy_for_pairs(batch_size: int, micro_batch: int, world: int, parts: int) -> str:
    """Return a setting with which every pass has two clips."""
    if min(shares(batch_size, parts, world)) >= 2:
        larger = (m for m in range(micro_batch, batch_size + 1) if _fewest_clips(batch_size, m, world, parts) >= 2)
        return f"optim.micro_batch={next(larger)}"
    remedy = f"optim.batch_size to at least {2 * world}"
    return f"{remedy} and optim.micro_batch=0" if micro_batch == 1 else remedy


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
