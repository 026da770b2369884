"""Which clips of a global batch a worker reads: any of them, or those of its own parts of the data.

A part is a run of training clips in the order in which they lie in the shards. Of each global batch it gives its
share, drawn by the seed, the epoch and the part alone: the batches are the same however many workers read the parts and
whichever of them reads which, and a worker opens the shards of its own parts only.
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
    """Numbers of the parts that belong together, a group for each worker; some have one part more."""
    return [range(count * rank // world, count * (rank + 1) // world) for rank in range(world)]


def quotas(batch_size: int, count: int) -> list[int]:
    """How many clips each part gives to a global batch."""
    return [batch_size * (part + 1) // count - batch_size * part // count for part in range(count)]


def shares(batch_size: int, count: int, world: int) -> list[int]:
    """How many clips of a global batch each worker's group has; the ``world``-th part of all if there is one part."""
    if count == 1:
        return [len(range(rank, batch_size, world)) for rank in range(world)]
    given = quotas(batch_size, count)
    return [sum(given[part] for part in group) for group in groups(count, world)]


def in_shard_order(store: ClipStore, examples: Sequence[Example]) -> list[int]:
    """Numbers of the examples, sorted by where their frames lie."""
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
        """Numbers of all clips that the worker with this group may read."""
        if len(self.members) == 1:
            return self.members[0]
        return np.concatenate([self.members[part] for part in groups(len(self.members), world)[group]])

    def shards(self, store: ClipStore, examples: Sequence[Example], world: int) -> list[set[str]]:
        """Names of the shards that each worker's group may read."""
        apart = range(world if len(self.members) > 1 else 1)
        read = [{store.place(examples[i].clip_id)[0] for i in self.own(group, world)} for group in apart]
        return read * (world // len(read))

    def steps(self, seed: int, epoch: int, group: int, world: int) -> Iterator[np.ndarray]:
        """Yield, for each global batch of ``epoch`` (0-based), the clips in it that the group's worker reads.

        What does not fill a batch is left out, as published; another part of the clips in each epoch.
        """
        count, batch_size = len(self.members), sum(self.quotas)
        steps = sum(map(len, self.members)) // batch_size
        if count == 1:
            order = np.random.default_rng([seed, epoch]).permutation(self.members[0])
            for step in range(steps):
                yield order[step * batch_size : (step + 1) * batch_size][group::world]
            return
        # The 2 keeps these seeds apart from those of single clips and of mixing (``batches.py``).
        orders = {
            part: np.random.default_rng([seed, epoch, part, 2]).permutation(self.members[part])
            for part in groups(count, world)[group]
        }
        for step in range(steps):
            yield np.concatenate(
                [order[step * (n := self.quotas[part]) : (step + 1) * n] for part, order in orders.items()]
            )


def groups_by_rank(held: Sequence[Sequence[int]]) -> list[int]:
    """Which group each rank takes, so that most is on its machine already.

    ``held[rank][group]``: shards of the group that the rank's machine holds. Equal everywhere: rank r takes group r.
    """
    from scipy.optimize import linear_sum_assignment

    worth = 2 * np.array(held) + np.eye(len(held), dtype=int)
    return [int(group) for group in linear_sum_assignment(worth, maximize=True)[1]]
