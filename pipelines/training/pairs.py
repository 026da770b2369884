"""Train on pairs of videos and captions: a contrastive loss over the pairs of all workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.training.batches import passes_per_step
from vlmodels.classifier import cosine_logits

if TYPE_CHECKING:
    from pipelines.config.schema import TrainConfig
    from vlmodels.methods.base import Method


class PairOutput(NamedTuple):
    """Weighted loss terms, and the share of videos whose own caption is nearest; both of all workers' pairs."""

    terms: dict[str, Tensor]
    top1: Tensor


class PairModel(nn.Module):
    """A method that trains on pairs; DDP wraps this, so that it sees the forward pass.

    Loss and averaged gradient are those of all workers' pairs in this pass: one worker and several learn the same.
    Pairs of other passes (``optim.micro_batch``) are no negatives; two captions of one video in a pass are negatives
    of each other, as in CLIP4Clip.
    """

    def __init__(self, method: Method, world: int = 1) -> None:
        super().__init__()
        self.method = method
        self._world = world

    def forward(self, frames: Tensor, captions: Sequence[str]) -> PairOutput:
        """Return the losses of clips (B,T,3,H,W) and the caption of each; every worker has the same B."""
        own = (self.method.encode_video(frames), *self.method.caption_features(captions))
        video, text, *others = (_Gathered.apply(part, self._world) for part in own) if self._world > 1 else own
        scores = cosine_logits(video.detach(), text.detach(), self.method.backbone.logit_scale.detach())
        right = scores.diagonal() >= scores.amax(dim=1)  # a repeated caption is right too
        return PairOutput(self.method.pair_terms(video, text, *others), right.float().mean())


class _Gathered(torch.autograd.Function):
    """The rows of all workers, by rank.

    Each worker computes the same loss of the same rows. So the gradient that its own rows get from all of these losses
    is ``world`` times the one from its own, and nothing has to travel back; DDP's mean removes the factor.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, world: int) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(parts, own.contiguous())
        start = dist.get_rank() * len(own)
        ctx.rows, ctx.world = slice(start, start + len(own)), world
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.world * grads[0][ctx.rows], None


def pair_problems(config: TrainConfig, method: Method) -> list[str]:
    """Return why ``config`` cannot train ``method`` on pairs, each reason with the remedy.

    Batches that no protocol can use are left to ``pipelines/config/check.py``.
    """
    optim = config.optim
    problems = method.retrieval_problems()
    if not optim.epochs or not method.trainable_parameters():
        return problems
    if 1 <= config.scale.workers <= optim.batch_size and optim.micro_batch >= 0:
        problems += _batch_problems(config)
    soft = {
        "augment.mixup": config.augment.mixup,
        "augment.cutmix": config.augment.cutmix,
        "optim.label_smoothing": optim.label_smoothing,
    }
    if wrong := [f"{name}=0" for name, value in soft.items() if value]:
        problems.append(f"captions cannot be mixed or smoothed as classes can; set {', '.join(wrong)}")
    return problems


def _batch_problems(config: TrainConfig) -> list[str]:
    """Return the first reason why the workers cannot share the pairs of a batch."""
    optim, parts, workers = config.optim, config.data.parts, config.scale.workers
    if optim.batch_size % workers:
        multiple = math.ceil(optim.batch_size / workers) * workers
        return [
            f"each worker must have as many pairs as the others, but optim.batch_size={optim.batch_size} is not "
            f"a multiple of scale.workers={workers}; set optim.batch_size={multiple}"
        ]
    if parts > 1 and parts % workers:
        return [
            f"each worker must have as many pairs as the others, but data.parts={parts} is not a multiple of "
            f"scale.workers={workers}; set data.parts={workers}"
        ]
    if config.scale.min_workers:
        return ["pairs are compared over all workers, whose number cannot change; set scale.min_workers=0"]
    passes = passes_per_step(optim.batch_size, optim.micro_batch, workers)
    if workers * (optim.batch_size // workers // passes) < 2:
        return [
            f"a caption is compared with the others of its pass, but optim.batch_size={optim.batch_size} with "
            f"optim.micro_batch={optim.micro_batch} leaves a pass with one pair; set both larger, or "
            "optim.micro_batch=0 for a single pass"
        ]
    return []
