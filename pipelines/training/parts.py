"""Divide the clips of a global batch among the workers: any of them, or those of a worker's own parts of the data.

A part is a run of training clips in the order in which they lie in the shards. It gives its share of each global batch,
drawn by the seed, the epoch and the part alone: the batches are the same for any number of workers, whichever of them
reads which part, and a worker opens the shards of its own parts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.protocols.split import Example
    from pipelines.shards.clip_store import ClipStore


def groups(count: int, world: int) -> list[range]:
    """Return the numbers of the parts of each worker's group; some groups have one part more."""
    return [range(count * rank // world, count * (rank + 1) // world) for rank in range(world)]


def quotas(batch_size: int, count: int) -> list[int]:
    """Return how many clips each part gives to a global batch."""
    return [batch_size * (part + 1) // count - batch_size * part // count for part in range(count)]


def shares(batch_size: int, count: int, world: int) -> list[int]:
    """Return how many clips of a global batch each worker's group has; with one part, all workers share it."""
    if count == 1:
        return [len(range(rank, batch_size, world)) for rank in range(world)]
    given = quotas(batch_size, count)
    return [sum(given[part] for part in group) for group in groups(count, world)]


def in_shard_order(store: ClipStore, examples: Sequence[Example]) -> list[int]:
    """Return the numbers of the examples, sorted by where their frames lie."""
    return sorted(range(len(examples)), key=lambda i: store.place(examples[i].clip_id))


@dataclass(frozen=True)
class Parts:
    """Training clips cut into parts: each clip is in one of them.

    Attributes:
        members: numbers of the clips of each part.
        quotas: clips that each part gives to a global batch; they sum to its size.
    """

    members: tuple[np.ndarray, ...]
    quotas: tuple[int, ...]

    @classmethod
    def cut(cls, store: ClipStore, examples: Sequence[Example], batch_size: int, count: int) -> Parts:
        """Cut ``examples`` into ``count`` parts, at most ``batch_size``, each as large as its quota asks for."""
        order = np.arange(len(examples)) if count == 1 else np.array(in_shard_order(store, examples))
        given = quotas(batch_size, count)
        cuts = [int(sum(given[:part])) * len(order) // batch_size for part in range(count + 1)]
        return cls(tuple(order[start:stop] for start, stop in pairwise(cuts)), tuple(given))

    def own(self, group: int, world: int) -> np.ndarray:
        """Return the numbers of all clips that the worker with this group may read."""
        if len(self.members) == 1:
            return self.members[0]
        return np.concatenate([self.members[part] for part in groups(len(self.members), world)[group]])

    def shards(self, store: ClipStore, examples: Sequence[Example], world: int) -> list[set[str]]:
        """Return the names of the shards that each worker's group may read."""
        if len(self.members) == 1:
            return [self._shards_of(0, store, examples, world)] * world
        return [self._shards_of(group, store, examples, world) for group in range(world)]

    def _shards_of(self, group: int, store: ClipStore, examples: Sequence[Example], world: int) -> set[str]:
        return {store.place(examples[i].clip_id)[0] for i in self.own(group, world)}

    def steps(self, seed: int, epoch: int, group: int, world: int) -> Iterator[np.ndarray]:
        """Yield, for each global batch of ``epoch`` (0-based), the clips in it that the group's worker reads.

        Clips that do not fill a batch are left out, as published: other ones in each epoch.
        """
        batch_size = sum(self.quotas)
        steps = sum(map(len, self.members)) // batch_size
        if len(self.members) == 1:
            order = np.random.default_rng([seed, epoch]).permutation(self.members[0])
            for step in range(steps):
                yield _chunk(order, step, batch_size)[group::world]
            return
        # The 2 keeps these seeds apart from those of single clips and of mixing (``batches.py``).
        orders = {
            part: np.random.default_rng([seed, epoch, part, 2]).permutation(self.members[part])
            for part in groups(len(self.members), world)[group]
        }
        for step in range(steps):
            yield np.concatenate([_chunk(order, step, self.quotas[part]) for part, order in orders.items()])


def _chunk(order: np.ndarray, number: int, size: int) -> np.ndarray:
    return order[number * size : (number + 1) * size]


def groups_by_rank(held: Sequence[Sequence[int]]) -> list[int]:
    """Return the group that each rank takes, so that as many shards as possible are on its machine already.

    Args:
        held: for each rank and each group, the shards of the group that the rank's machine holds. Where all are equal,
            rank r takes group r.
    """
    from scipy.optimize import linear_sum_assignment

    worth = 2 * np.array(held) + np.eye(len(held), dtype=int)
    return [int(group) for group in linear_sum_assignment(worth, maximize=True)[1]]
