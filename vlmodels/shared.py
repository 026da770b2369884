"""What frozen text towers gave, kept for the life of a process: a sweep's trials ask equal backbones the same.

Kept is what depends on nothing but weights, token ids and the way to compute; ``Backbone`` says when that holds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

LIMIT = 256 * 2**20  # bytes of main memory


class Kept:
    """Tensors by key, at most ``limit`` bytes of them: those that were asked for last.

    They lie in main memory and are copied on their way in and out, so nobody can change what others get.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.nbytes = limit, 0
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = threading.Lock()  # trials may be threads

    def get(self, key: Hashable, device: torch.device, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor under ``key`` on ``device``; computed if it is not there."""
        with self._lock:
            found = self._tensors.get(key)
            if found is not None:
                self._tensors.move_to_end(key)
        with torch.inference_mode(mode=False):  # usable in training wherever it was computed
            if found is not None:
                return found.to(device, copy=True)
        value = compute()
        with torch.inference_mode(mode=False):
            held = value.detach().to("cpu", copy=True)
        with self._lock:
            if key not in self._tensors and held.nbytes <= self.limit:
                self._tensors[key] = held
                self.nbytes += held.nbytes
            while self.nbytes > self.limit:
                self.nbytes -= self._tensors.popitem(last=False)[1].nbytes
        return value

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
