"""What frozen text towers gave, kept for the life of a process: a sweep's trials ask equal backbones the same.

Kept is what depends on nothing but weights, token ids and the way to compute; ``Backbone`` says when that holds.
The ranks of a process group that ask the same ``together`` divide the work.
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
def together(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """In this context all ranks of ``group`` (the default one) divide the texts that they ask for alike.

    Each encodes an equal share of at least ``DIVIDED_FROM`` texts and gets the features of all, in order and to the
    bit as the other ranks get them. Last bits may differ from those of one batch, as they do between batch sizes.
    This pays on CPUs; a GPU is done before a network is, and computes alone, as does everything without a group.

    All ranks must enter, and leave before any other use of the group. Within, they may do as they like: a rank that
    has the features already, asks for others or for nothing, or raises, keeps no other rank waiting.
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
        while not _agree(group, None)[0]:
            pass  # others still ask


def _can_divide(group: dist.ProcessGroup | None) -> bool:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) < 2:
        return False
    return "cpu:" in dist.get_backend_config(group)


def _agree(group: dist.ProcessGroup, key: Hashable | None, flag: bool = False) -> tuple[bool, bool]:
    """Whether all ranks are at ``key`` (None: at the end), and whether any of them raises its flag."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
    said = torch.tensor([number, -number, int(flag)])
    dist.all_reduce(said, dist.ReduceOp.MAX, group)
    largest, smallest, flags = said.tolist()
    return largest == -smallest, bool(flags)


def _shares(count: int, world: int) -> list[tuple[int, int]]:
    """First row of each rank's share, and the first that is not a former rank's too: shares are equally large."""
    size = -(-count // world)
    return [(min(rank * size, count - size), min(rank * size, count)) for rank in range(world)]


def _divided(group: dist.ProcessGroup, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """``compute(tokens)``, of which each rank computes some rows; alone if another rank cannot."""
    shares = _shares(len(tokens), group.size())
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


class Kept:
    """Tensors by key, at most ``limit`` bytes of them: those that were asked for last.

    They lie in main memory and are copied on their way in and out, so nobody can change what others get.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.nbytes = limit, 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()  # trials may be threads

    def get(self, key: Hashable, tokens: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The tensor under ``key`` on the device of ``tokens``; computed of them, row by row, if it is not there."""
        device, group = tokens.device, _GROUP.get()
        with self._lock:
            found = self._tensors.get(key)
            if found is not None:
                self._tensors.move_to_end(key)
        divided = False
        if group is not None and device.type == "cpu" and len(tokens) >= DIVIDED_FROM:
            divided = _agree(group, key, found is None) == (True, True)
        with torch.inference_mode(mode=False):  # usable in training wherever it was computed
            if found is not None and not divided:
                return found.to(device, copy=True)
        value = _divided(group, tokens, compute) if group is not None and divided else compute(tokens)
        with torch.inference_mode(mode=False):
            held = value.detach().to("cpu", copy=True)
        with self._lock:
            if divided:  # all ranks keep the same
                self._drop(key)
            if key not in self._tensors and held.nbytes <= self.limit:
                self._tensors[key] = held
                self.nbytes += held.nbytes
            while self.nbytes > self.limit:
                self._drop(next(iter(self._tensors)))
        return value

    def _drop(self, key: Hashable) -> None:
        if key in self._tensors:
            self.nbytes -= self._tensors.pop(key).nbytes

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._tensors.clear()
            self.nbytes = 0


TEXT = Kept()


def arithmetic(device: torch.device) -> tuple[Hashable, ...]:
    """What the last bits of a product on ``device`` depend on beside its factors."""
    return (
        str(device),
        torch.is_autocast_enabled(device.type),
        torch.get_autocast_dtype(device.type),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
    )
