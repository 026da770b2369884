"""Augment whole training clips: one draw per clip, on the device where the clip lies."""

from __future__ import annotations

import functools
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms import v2

from pipelines.config.schema import AugmentConfig

STRENGTH = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}  # ViFi-CLIP's training loop


class Augment:
    """RandAugment, random crop, flip, colour jitter and gray, as configured, then normalisation.

    Args:
        config: what is drawn, and how often.
        size: height and width of the result.
        mean: of each channel, as the backbone expects them.
        std: of each channel.
    """

    def __init__(
        self, config: AugmentConfig, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        steps = [*(rand_augment() if config.randaugment else ()), *random_crop(config, size)]
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
            seed: fixes every draw, on any worker, in any batch and on any device.

        Returns:
            Normalised float ``(T, 3, h, w)``.
        """
        frames = rearrange(clip, "t h w c -> t c h w")
        with torch.random.fork_rng(devices=[]):  # v2 draws on the CPU generator, also for CUDA clips
            torch.default_generator.manual_seed(seed)  # not CUDA's, which draws dropout
            frames = self._draw(frames)
        return self._normalize(_to_float(frames))


def random_crop(config: AugmentConfig, size: tuple[int, int]) -> list[v2.Transform]:
    """Return the steps that resize and crop to ``size`` (h, w), for ``config.crop``."""
    if config.crop == "short_side":  # M2-CLIP's release on Kinetics: 224 to 258 pixels
        shorts = range(min(size), round(1.15 * min(size)) + 1)
        bicubic = v2.InterpolationMode.BICUBIC
        resize = v2.RandomChoice([v2.Resize(short, interpolation=bicubic, antialias=True) for short in shorts])
        return [resize, v2.RandomCrop(size)]
    crop: v2.Transform = v2.RandomCrop(size)
    if config.crop == "multiscale":
        crop = MultiScaleCrop(size)
    elif config.crop_scale < 1:  # MSTA section 4.2
        crop = v2.RandomResizedCrop(size, scale=(config.crop_scale, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)
    return [v2.Resize(round(min(size) * 256 / 224), antialias=True), crop]


class MultiScaleCrop(v2.Transform):
    """The crop of X-CLIP and ViFi-CLIP: sides from four scales of the short side, at a corner or the centre."""

    SCALES = (1.0, 0.875, 0.75, 0.66)

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._size = list(size)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw height and width, evenly among the pairs at most one scale apart, then one of five places."""
        height, width = v2.query_size(flat_inputs)
        sides = [int(min(height, width) * scale) for scale in self.SCALES]
        pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
        h, w = pairs[int(torch.randint(len(pairs), ()))]
        bottom, right = height - h, width - w
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
        top, left = places[int(torch.randint(len(places), ()))]
        return {"top": top, "left": left, "height": h, "width": w}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Crop and resize."""
        return v2.functional.resized_crop(inpt, **params, size=self._size, antialias=True)


def rand_augment() -> list[v2.Transform]:
    """Return M2-CLIP's "rand-m7-n4-mstd0.5-inc1", but for the noise of the magnitude, which torchvision lacks.

    That notation's magnitude counts to 10, each of its four operations is applied with probability 1/2, and what
    an operation moves into view is mid-gray.
    """
    one = v2.RandAugment(
        num_ops=1, magnitude=7, num_magnitude_bins=11, interpolation=v2.InterpolationMode.BILINEAR, fill=128
    )
    return [v2.RandomApply([one], p=0.5) for _ in range(4)]


_to_float = functools.partial(v2.functional.to_dtype, dtype=torch.float32, scale=True)
