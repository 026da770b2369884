"""Make the soft targets of a batch: label smoothing, then MixUp or CutMix of whole clips, one draw for all frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipelines.config.schema import AugmentConfig


class Mixing:
    """Mixes each clip with its neighbour in the batch (MixUp: arXiv 1710.09412; CutMix: arXiv 1905.04899).

    With both on, each batch draws one of the two evenly. Weight and box are the same for all clips and frames.

    Args:
        config: Beta parameters of MixUp and CutMix; 0: off.
        label_smoothing: between 0 and 1.
        classes: number of classes.
    """

    def __init__(self, config: AugmentConfig, label_smoothing: float, classes: int) -> None:
        kinds = ((v2.MixUp, config.mixup), (v2.CutMix, config.cutmix))
        chosen = [kind(alpha=alpha) for kind, alpha in kinds if alpha]
        self._mix = v2.RandomChoice(chosen) if chosen else None
        self._smoothing = label_smoothing
        self._classes = classes

    @property
    def needs_pairs(self) -> bool:
        """Whether a batch of one clip would go unmixed."""
        return self._mix is not None

    def __call__(self, frames: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix one batch.

        Args:
            frames: float ``(B, T, 3, h, w)``.
            labels: int64 ``(B,)``.
            seed: fixes every draw.

        Returns:
            Frames, and probabilities ``(B, C)``; both as given where neither mixing nor smoothing is on.
        """
        if self._mix is None and not self._smoothing:
            return frames, labels
        targets = smoothed(labels, self._classes, self._smoothing)
        if self._mix is None:
            return frames, targets
        with torch.random.fork_rng(devices=[]):  # as in ``Augment``: all draws come from the CPU generator
            torch.default_generator.manual_seed(seed)
            video, targets = self._mix(tv_tensors.Video(frames), targets)
        return video.as_subclass(Tensor), targets


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return probabilities ``(B, C)``: 1 - s + s/C at the label and s/C elsewhere."""
    return functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
