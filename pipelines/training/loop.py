"""The training loop itself: pure torch, one process of possibly many, no Ray and no files.

It is exact: the learning rate is a function of the step, random numbers of seed, epoch and rank, so a run
that restarts at an epoch ends like one that never stopped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.config.schema import OptimConfig
from pipelines.training.batches import MicroBatch, TrainBatches
from pipelines.training.errors import DivergedError
from pipelines.training.optimizer import learning_rate, make_optimizer, set_rate
from pipelines.training.pairs import PairModel
from pipelines.training.traffic import Traffic
from vlmodels import shared
from vlmodels.methods.base import Method, Output

Epoch = dict[str, float]


class OnEpoch(Protocol):
    """Called after each epoch on every rank, with the epoch's metrics."""

    def __call__(self, epoch: int, metrics: Epoch, optimizer: torch.optim.Optimizer) -> None:
        """Take note of the 0-based ``epoch``."""


@dataclass
class Loop:
    """Trains what ``method.attach()`` declared, and nothing else.

    With ``captions``, it trains on pairs: the batches' targets are then indices of captions.
    """

    method: Method
    batches: TrainBatches
    optim: OptimConfig
    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1
    on_step: Callable[[int, int], None] | None = None  # (step, steps of the epoch)
    captions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.parameters = list(self.method.trainable_parameters())
        self.optimizer = make_optimizer(self.method, self.optim)
        self._model: nn.Module = self.method if self.captions is None else PairModel(self.method, self.world)
        self._parallel: DistributedDataParallel | None = None
        self._traffic = Traffic()
        self._together = self.world > 1 and self.captions is None  # in the first pass
        if self.world > 1:
            for parameter in self.parameters:  # frozen weights are the same everywhere: only adapters travel
                dist.broadcast(parameter.data, src=0)
            self._model = self._parallel = DistributedDataParallel(
                self._model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                init_sync=False,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
            self._parallel.register_comm_hook(self._traffic, Traffic.reduce)

    def run(self, on_epoch: OnEpoch, start_epoch: int = 0) -> None:
        """Train from ``start_epoch`` (0-based) to the last epoch.

        Raises:
            DivergedError: at the end of the first epoch whose loss is not finite, on every rank.
        """
        for epoch in range(start_epoch, self.optim.epochs):
            metrics = self._epoch(epoch)
            if not math.isfinite(metrics["loss"]):
                raise DivergedError(
                    f"the loss is {metrics['loss']} in epoch {epoch + 1} (learning rate {metrics['lr']:.2g}); "
                    "lower optim.lr, or set optim.precision=fp32"
                )
            on_epoch(epoch, metrics, self.optimizer)

    def _epoch(self, epoch: int) -> Epoch:
        torch.manual_seed(int(np.random.SeedSequence([self.seed, epoch, self.rank]).generate_state(1)[0]))
        self.method.train()
        steps = self.batches.steps_per_epoch
        sums: dict[str, Tensor] = {}
        step = epoch * steps
        started, waited = time.perf_counter(), 0.0
        batches = self.batches.epoch(epoch)
        rate = 0.0
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            # DDP averages over workers; a pass counts by its share of the global batch.
            with contextlib.nullcontext() if batch.last or self._parallel is None else self._parallel.no_sync():
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.optim.precision == "bf16"):
                    with shared.together() if self._together else contextlib.nullcontext():
                        terms, correct = self._forward(batch)
                    self._together = False
                    loss = torch.stack(list(terms.values())).sum()
                (loss * batch.share).backward()
            for name, value in {"loss": loss, **terms, "train_top1": 100 * correct}.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * batch.share
            if batch.last:
                rate = learning_rate(step, self.optim, steps)
                set_rate(self.optimizer, rate)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                step += 1
                if self.on_step is not None:
                    self.on_step(step - epoch * steps, steps)
        metrics = self._mean(sums, steps)
        seconds = time.perf_counter() - started
        clips = steps * self.batches.batch_size
        network_wait, sent = self._traffic.taken()
        return metrics | {
            "lr": rate,
            "seconds": seconds,
            "data_wait": waited,
            "network_wait": network_wait,
            "network_bytes_per_step": sent / steps,
            "clips_per_second": clips / seconds,
        }

    def _forward(self, batch: MicroBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Loss terms, and the share of clips whose own class, or caption of this pass, scores best."""
        if self.captions is not None:
            return self._model(batch.frames, [self.captions[i] for i in batch.targets.tolist()])
        output: Output = self._model(batch.frames, batch.targets)
        labels = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(-1)
        correct = (output.logits.detach().argmax(-1) == labels).float().mean()
        return self.method.losses(output, batch.targets), correct

    def _mean(self, sums: dict[str, Tensor], steps: int) -> Epoch:
        """Mean over steps and ranks, in one all-reduce an epoch."""
        values = torch.stack(list(sums.values())).to(self.device) / (steps * self.world)
        if self.world > 1:
            dist.all_reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))
