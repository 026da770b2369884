"""Count what training sends over the network, and how long it waits for it."""

import time  # annotations are not postponed here: DDP looks at those of a hook
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

Mark = float | torch.cuda.Event


@dataclass
class Traffic:
    """State of a DDP communication hook: averages gradients as DDP itself does, bit for bit, and keeps count.

    Register it with ``ddp.register_comm_hook(traffic, Traffic.reduce)``; gradients must be None before each step.
    The bytes are those of the gradients of what trains, once a step. The wait lasts from the hand-over of a step's last
    bucket, when no backward pass is left to hide it, to the end of its all-reduce; it contains the wait for slower
    ranks. What is not counted: docs/RAY.md#traffic.
    """

    nbytes: int = 0
    _waits: list[tuple[Mark, Mark]] = field(default_factory=list)

    def reduce(self, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]  # not everywhere
        """Average a bucket of gradients over the default group: DDP's hook."""
        gradients = bucket.buffer()
        gradients.mul_(1 / dist.get_world_size())  # as DDP; a division rounds differently unless the world is 2, 4, ...
        self.nbytes += gradients.nbytes
        launched = _now(gradients.device) if bucket.is_last() else None

        def ended(future: Future[list[Tensor]]) -> Tensor:
            [reduced] = future.value()
            if launched is not None:
                self._waits.append((launched, _now(reduced.device)))
            return reduced

        work = dist.all_reduce(gradients, async_op=True)
        assert work is not None
        return work.get_future().then(ended)

    def taken(self) -> tuple[float, int]:
        """Return seconds of waiting and bytes since the last call; a GPU is waited for here, not in each step."""
        taken = sum(_seconds(*wait) for wait in self._waits), self.nbytes
        self._waits = []
        self.nbytes = 0
        return taken


def _now(device: torch.device) -> Mark:
    """Return the time, or on a GPU an event in the current stream: in a future's callback, after the collective."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start: Any, end: Any) -> float:
    if isinstance(end, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1000
