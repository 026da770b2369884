"""What training sends over the network, and how long it waits for it."""

from __future__ import annotations

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

    Counted are the gradients that this rank hands to all-reduce: those of what trains, once a step, whatever the
    number of passes; nothing frozen ever travels. A ring of n ranks sends each such byte 2 (n - 1) / n times.

    Not counted is what is small or rare: the adapter at the start, four bytes for each loss term an epoch, the order
    of DDP's buckets once, scores after training, the text features that ``vlmodels.shared.together`` divides; and,
    in training on pairs, the features that ``PairModel`` gathers, ``4 E`` bytes for each clip and each caption.

    The wait is the part of an all-reduce behind which no backward pass is left to hide: from the hand-over of a
    step's last bucket to its end. It contains the wait for slower ranks.
    """

    nbytes: int = 0
    _waits: list[tuple[Mark, Mark]] = field(default_factory=list)

    def reduce(self, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]  # not everywhere
        """Average a bucket of gradients over the default group: DDP's hook."""
        gradients = bucket.buffer()
        gradients.mul_(1 / dist.get_world_size())  # as DDP; a division rounds otherwise unless the world is 2, 4, ...
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
        """Seconds of waiting and bytes since the last call; a GPU is waited for here, not in each step."""
        waits, nbytes = self._waits, self.nbytes
        self._waits, self.nbytes = [], 0
        return sum(_seconds(*wait) for wait in waits), nbytes


def _now(device: torch.device) -> Mark:
    """The clock, or on a GPU an event in the current stream: in a future's callback, behind the collective."""
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
