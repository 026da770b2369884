"""Train: pure torch, one process of possibly many, no Ray and no files.

The learning rate is a function of the step, random numbers are functions of seed, epoch and rank: a run that restarts
at an epoch ends like one that never stopped.
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
from vlmodels.methods.base import Method, Output
from vlmodels.text_cache import encode_together

Epoch = dict[str, float]
"""Metrics of an epoch by name."""


class OnEpoch(Protocol):
    """What is called after each epoch on every rank, with the epoch's metrics."""

    def __call__(self, epoch: int, metrics: Epoch, optimizer: torch.optim.Optimizer) -> None:
        """Take the 0-based ``epoch``."""


@dataclass
class Loop:
    """Trains what ``method.attach()`` declared, and nothing else.

    Attributes:
        method: on ``device``.
        batches: of this rank.
        optim: optimizer and schedule.
        seed: of dropout and other draws of the method.
        device: of this rank.
        rank: of this process, or the group of clips that it reads.
        world: number of ranks.
        on_step: called with the step of the epoch and its number of steps.
        captions: makes it train on pairs: the batches' targets are then indices of captions.
    """

    method: Method
    batches: TrainBatches
    optim: OptimConfig
    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1
    on_step: Callable[[int, int], None] | None = None
    captions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self.parameters = list(self.method.trainable_parameters())
        self.optimizer = make_optimizer(self.method, self.optim)
        self._model: nn.Module = self.method if self.captions is None else PairModel(self.method, self.world)
        self._parallel: DistributedDataParallel | None = None
        self._traffic = Traffic()
        self._divide_texts = self.world > 1 and self.captions is None  # in the first pass
        if self.world > 1:
            self._model = self._parallel = self._wrapped(self._model)

    def _wrapped(self, model: nn.Module) -> DistributedDataParallel:
        """Return the model in DDP, with rank 0's adapter and with gradients that are counted."""
        for parameter in self.parameters:  # frozen weights are the same everywhere: only adapters travel
            dist.broadcast(parameter.data, src=0)
        for buffer in self.method.regulariser.buffers() if self.method.regulariser is not None else ():
            dist.broadcast(buffer, src=0)  # a teacher starts as what was drawn on rank 0
        parallel = DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            init_sync=False,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
        parallel.register_comm_hook(self._traffic, Traffic.reduce)
        return parallel

    def run(self, on_epoch: OnEpoch, start_epoch: int = 0) -> None:
        """Train from ``start_epoch`` (0-based) to the last epoch.

        Raises:
            DivergedError: at the end of the first epoch whose loss is not finite, on every rank.
        """
        for epoch in range(start_epoch, self.optim.epochs):
            metrics = self.epoch(epoch)
            if not math.isfinite(metrics["loss"]):
                raise DivergedError(
                    f"the loss is {metrics['loss']} in epoch {epoch + 1} (learning rate {metrics['lr']:.2g}); "
                    "lower optim.lr, or set optim.precision=fp32"
                )
            on_epoch(epoch, metrics, self.optimizer)

    def epoch(self, epoch: int) -> Epoch:
        """Train the 0-based ``epoch``; return its metrics, the same on every rank but for the times."""
        torch.manual_seed(int(np.random.SeedSequence([self.seed, epoch, self.rank]).generate_state(1)[0]))
        self.method.train()
        sums: dict[str, Tensor] = {}
        step = 0  # of the epoch
        rate = waited = 0.0
        started = time.perf_counter()
        batches = self.batches.epoch(epoch)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            for name, value in self._pass(batch).items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * batch.share
            if batch.last:
                rate = self._step(epoch, step)
                step += 1
        metrics = self._mean(sums)
        seconds = time.perf_counter() - started
        return metrics | {"lr": rate, "seconds": seconds, "data_wait": waited} | self._speeds(seconds)

    def _pass(self, batch: MicroBatch) -> dict[str, Tensor]:
        """Run a micro-batch forward and backward; return its loss, loss terms and accuracy in percent."""
        # DDP averages over workers; a pass counts by its share of the global batch.
        with contextlib.nullcontext() if batch.last or self._parallel is None else self._parallel.no_sync():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.optim.precision == "bf16"):
                with encode_together() if self._divide_texts else contextlib.nullcontext():
                    terms, correct = self._forward(batch)
                self._divide_texts = False
                loss = torch.stack(list(terms.values())).sum()
            (loss * batch.share).backward()
        return {"loss": loss, **terms, "train_top1": 100 * correct}

    def _forward(self, batch: MicroBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Return loss terms, and the share of clips whose own class, or own caption of this pass, scores best."""
        if self.captions is not None:
            return self._model(batch.frames, [self.captions[i] for i in batch.targets.tolist()])
        output: Output = self._model(batch.frames, batch.targets)
        labels = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(-1)
        correct = (output.logits.detach().argmax(-1) == labels).float().mean()
        return self.method.training_losses(output, batch.targets), correct

    def _step(self, epoch: int, step: int) -> float:
        """Make the optimizer's step; return the learning rate."""
        steps = self.batches.steps_per_epoch
        rate = learning_rate(epoch * steps + step, self.optim, steps)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step()
        if self.on_step is not None:
            self.on_step(step + 1, steps)
        return rate

    def _mean(self, sums: dict[str, Tensor]) -> Epoch:
        """Return the mean over steps and ranks, in one all-reduce an epoch."""
        values = torch.stack(list(sums.values())).to(self.device) / (self.batches.steps_per_epoch * self.world)
        if self.world > 1:
            dist.all_reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))

    def _speeds(self, seconds: float) -> Epoch:
        """Return the traffic and the clips per second of an epoch that took ``seconds``."""
        network_wait, sent = self._traffic.taken()
        steps = self.batches.steps_per_epoch
        return {
            "network_wait": network_wait,
            "network_bytes_per_step": sent / steps,
            "clips_per_second": steps * self.batches.batch_size / seconds,
        }
