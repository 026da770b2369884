"""Training augmentation of whole clips: one draw per clip, on the device where the clip lies."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torchvision.transforms import v2

from pipelines.config import AugmentConfig

STRENGTH = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}  # ViFi-CLIP's training loop


class Augment:
    """Random resized crop, flip, colour jitter and gray (MSTA section 4.2), then the backbone's normalisation."""

    def __init__(
        self, config: AugmentConfig, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        crop: v2.Transform = v2.RandomCrop(size)
        if config.crop_scale < 1:
            crop = v2.RandomResizedCrop(size, scale=(config.crop_scale, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)
        short = round(min(size) * 256 / 224)
        steps: list[v2.Transform] = [v2.Resize(short, antialias=True), crop]
        if config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        if config.jitter:
            steps.append(v2.RandomApply([v2.ColorJitter(**STRENGTH)], config.jitter))
        if config.gray:
            steps.append(v2.RandomGrayscale(config.gray))
        self._draw = v2.Compose(steps)
        self._normalize = v2.Normalize(list(mean), list(std))

    def __call__(self, clip: Tensor, seed: int) -> Tensor:
        """Augment one clip.

        Args:
            clip: uint8 ``(T, H, W, 3)``.
            seed: fixes every draw, whatever worker, batch or device the clip is on.

        Returns:
            Normalised float ``(T, 3, h, w)``.
        """
        frames = clip.permute(0, 3, 1, 2)
        with torch.random.fork_rng(devices=[]):  # v2 draws on the CPU generator, also for CUDA clips
            torch.default_generator.manual_seed(seed)  # not CUDA's, which draws dropout
            frames = self._draw(frames)
        return self._normalize(_to_float(frames))


_to_float = functools.partial(v2.functional.to_dtype, dtype=torch.float32, scale=True)
