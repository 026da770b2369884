"""Pairs of videos and captions: contrastive training over all workers' pairs, and the features that retrieval ranks."""

from __future__ import annotations

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


# ------------------------------------------------------------------------------------------------------- training


class PairOutput(NamedTuple):
    """Weighted loss terms, and the share of videos whose own caption is the nearest: of all workers' pairs."""

    terms: dict[str, Tensor]
    top1: Tensor


class PairModel(nn.Module):
    """A method that is trained on pairs; DDP wraps this, so that it sees the forward pass.

    The loss is that of the pairs of all workers in this pass, and so is its gradient once DDP has averaged: one worker
    and several learn the same. Pairs of other passes (``optim.micro_batch``) are no negatives. Two captions of one
    video in a pass are negatives of each other, as in CLIP4Clip.
    """

    def __init__(self, method: Method, world: int = 1) -> None:
        super().__init__()
        self.method, self._world = method, world

    def forward(self, frames: Tensor, captions: Sequence[str]) -> PairOutput:
        """Losses of clips (B,T,3,H,W) and the caption of each; every worker has the same B."""
        own = (self.method.encode_video(frames), *self.method.caption_features(captions))
        video, text, *others = (_Gathered.apply(part, self._world) for part in own) if self._world > 1 else own
        scores = cosine_logits(video.detach(), text.detach(), self.method.backbone.logit_scale.detach())
        right = scores.diagonal() >= scores.amax(dim=1)  # a repeated caption is right too
        return PairOutput(self.method.pair_terms(video, text, *others), right.float().mean())


class _Gathered(torch.autograd.Function):
    """Rows of all workers, by rank.

    Each worker computes the same loss of the same rows. So what reaches its own rows through all of these losses is
    ``world`` times what reaches them through its own, and nothing need travel back; DDP's mean takes the factor out.
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
    """Why ``config`` cannot train ``method`` on pairs, each reason with the remedy.

    Batches that no protocol could have (``pipelines/config/rules.py``) are left to be told there.
    """
    optim, workers = config.optim, config.scale.workers
    problems = method.retrieval_problems()
    if not optim.epochs or not method.trainable_parameters():
        return problems
    if not 1 <= workers <= optim.batch_size or optim.micro_batch < 0:
        pass
    elif optim.batch_size % workers:
        problems.append(
            f"each worker must have as many pairs as the others, but optim.batch_size={optim.batch_size} is no "
            f"multiple of scale.workers={workers}; set optim.batch_size={-(-optim.batch_size // workers) * workers}"
        )
    elif config.data.parts % workers and config.data.parts > 1:
        problems.append(
            f"each worker must have as many pairs as the others, but data.parts={config.data.parts} is no multiple of "
            f"scale.workers={workers}; set data.parts={workers}"
        )
    elif config.scale.min_workers:
        problems.append("pairs are compared over all workers, whose number cannot change; set scale.min_workers=0")
    elif workers * (optim.batch_size // workers // passes_per_step(optim.batch_size, optim.micro_batch, workers)) < 2:
        problems.append(
            f"a caption is told from the others of its pass, but optim.batch_size={optim.batch_size} with "
            f"optim.micro_batch={optim.micro_batch} leaves a pass with one pair; set both larger, or "
            "optim.micro_batch=0 for a single pass"
        )
    augment = config.augment
    settings = {
        "augment.mixup": augment.mixup,
        "augment.cutmix": augment.cutmix,
        "optim.label_smoothing": optim.label_smoothing,
    }
    if soft := [name for name, value in settings.items() if value]:
        problems.append(f"captions are no classes to mix or to smooth over; set {', '.join(f'{n}=0' for n in soft)}")
    return problems
