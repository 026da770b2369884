"""Cache of frozen text features for the life of a process: the trials of a sweep encode the same texts.

A key holds all that the features depend on: weights, token ids and the way to compute. ``Backbone`` decides when the
cache may be used. Ranks of a process group that encode the same texts (``encode_together``) divide the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

LIMIT = 256 * 2**20  # bytes of main memory
DIVIDED_FROM = 64  # texts

_GROUP: ContextVar[dist.ProcessGroup | None] = ContextVar("group", default=None)


@contextlib.contextmanager
def encode_together(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """Let the ranks of ``group`` (the default group if None) divide the texts that all of them encode.

    Each rank encodes an equal share of at least ``DIVIDED_FROM`` texts and receives the features of all, in order and
    with the same bits on every rank. The last bits may differ from those of one batch, as they do between batch sizes.
    Dividing pays on CPUs; a GPU is faster than a network and encodes alone, as does everything without a group.

    All ranks must enter, and must leave before they use the group for anything else. Inside, no rank waits for another
    that has the features already, encodes other texts or none, or raises.
    """
    if not _can_divide(group):
        yield
        return
    group = group or dist.group.WORLD
    assert group is not None
    token = _GROUP.set(group)
    try:
        yield
    finally:
        _GROUP.reset(token)
        all_done = False
        while not all_done:  # answer the ranks that still encode
            all_done, _ = _agree(group, None)


def _can_divide(group: dist.ProcessGroup | None) -> bool:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) < 2:
        return False
    return "cpu:" in dist.get_backend_config(group)


def _agree(group: dist.ProcessGroup, key: Hashable | None, flag: bool = False) -> tuple[bool, bool]:
    """Return whether all ranks are at ``key`` (None: at the end), and whether any of them raises its flag."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
    message = torch.tensor([number, -number, int(flag)])
    dist.all_reduce(message, dist.ReduceOp.MAX, group)
    largest, negated_smallest, flags = message.tolist()
    return largest == -negated_smallest, bool(flags)


def row_shares(count: int, world: int) -> list[tuple[int, int]]:
    """Return for each rank the first row of its share, and the first row that no lower rank has.

    All shares have ``ceil(count / world)`` rows, as ``all_gather`` requires; so the last ones overlap.
    """
    size = -(-count // world)
    return [(min(rank * size, count - size), min(rank * size, count)) for rank in range(world)]


def _compute_divided(group: dist.ProcessGroup, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``compute(tokens)``: each rank computes its own rows, or all rows if another rank fails."""
    shares = row_shares(len(tokens), group.size())
    size, failed = -(-len(tokens) // group.size()), True
    try:
        first, _ = shares[group.rank()]
        own = compute(tokens[first : first + size]).contiguous()
        failed = False
    finally:
        _, any_failed = _agree(group, "computed", failed)
    if any_failed:
        return compute(tokens)
    parts = [torch.empty_like(own) for _ in shares]
    dist.all_gather([part.view(torch.uint8) for part in parts], own.view(torch.uint8), group)
    return torch.cat([part[new - first :] for part, (first, new) in zip(parts, shares, strict=True)])


class TextCache:
    """Tensors by key, up to ``limit`` bytes of the most recently used ones.

    They lie in main memory and are copied on their way in and out, so a caller cannot change what others get.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.nbytes = 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()  # trials may be threads

    def __len__(self) -> int:
        return len(self._tensors)

    def get(self, key: Hashable, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the tensor under ``key`` on the device of ``tokens``, or ``compute(tokens)`` and store that.

        ``compute`` must treat the rows of ``tokens`` independently, as ranks may divide them.
        """
        group = _GROUP.get()
        found = self._find(key)
        divided = False
        if group is not None and tokens.device.type == "cpu" and len(tokens) >= DIVIDED_FROM:
            divided = _agree(group, key, found is None) == (True, True)
        if found is not None and not divided:
            with torch.inference_mode(mode=False):  # so that training may use it later
                return found.to(tokens.device, copy=True)
        value = _compute_divided(group, tokens, compute) if group is not None and divided else compute(tokens)
        self._store(key, value, replace=divided)  # all ranks then hold the same bits
        return value

    def _find(self, key: Hashable) -> Tensor | None:
        with self._lock:
            found = self._tensors.get(key)
            if found is not None:
                self._tensors.move_to_end(key)
            return found

    def _store(self, key: Hashable, value: Tensor, *, replace: bool) -> None:
        with torch.inference_mode(mode=False):  # so that training may use it later
            stored = value.detach().to("cpu", copy=True)
        with self._lock:
            if replace:
                self._drop(key)
            if key not in self._tensors and stored.nbytes <= self.limit:
                self._tensors[key] = stored
                self.nbytes += stored.nbytes
            while self.nbytes > self.limit:
                self._drop(next(iter(self._tensors)))

    def _drop(self, key: Hashable) -> None:
        if key in self._tensors:
            self.nbytes -= self._tensors.pop(key).nbytes

    def clear(self) -> None:
        """Drop all tensors."""
        with self._lock:
            self._tensors.clear()
            self.nbytes = 0


TEXT_CACHE = TextCache()


def arithmetic(device: torch.device) -> tuple[Hashable, ...]:
    """Return the settings that the last bits of a product on ``device`` depend on, besides its factors."""
    return (
        str(device),
        torch.is_autocast_enabled(device.type),
        torch.get_autocast_dtype(device.type),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
    )
