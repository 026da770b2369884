"""Evaluation views of stored frames: resize, crops along the long side, normalisation."""

# Shapes: B clip, T frame, H W pixel row and column, h w those of a crop, C colour.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torchvision.transforms.v2 import functional as transforms

from vlmodels.resize import stored_short_side

if TYPE_CHECKING:
    from torch import Tensor

    from vlmodels.spec import BackboneSpec

CROPS: dict[int, tuple[float, ...]] = {1: (0.5,), 3: (0, 0.5, 1), 4: (0, 0.25, 0.5, 1)}
"""Places of a clip's spatial views by their number, as fractions of the room that the long side leaves a crop."""


def eval_views(clips: Tensor, spec: BackboneSpec, *, crops: int = 1) -> Tensor:
    """Return normalised views (B*crops,T,3,h,w) of uint8 clips (B,T,H,W,3), the crops of a clip one after another.

    One crop is the centre of frames whose short side is 256/224 of the crop's (for small sizes rounded up as stored
    frames are). Three and four crops lie along the long side of frames that just cover the crop: the published test
    views of ViFi-CLIP and its descendants, and of M2-CLIP on K400, whose four are not evenly spaced.

    Raises:
        ValueError: ``crops`` is none of 1, 3, 4.
    """
    if crops not in CROPS:
        raise ValueError(f"crops may be {', '.join(map(str, CROPS))}, not {crops}")
    height, width = spec.image_size
    shape = (stored_short_side(height), stored_short_side(width)) if crops == 1 else (height, width)
    frames = _cover(rearrange(clips, "b t h w c -> b t c h w"), *shape)
    down, right = frames.shape[-2] - height, frames.shape[-1] - width
    places = [(int(down * part), int(right * part)) for part in CROPS[crops]]
    views = [frames[..., top : top + height, left : left + width] for top, left in places]
    crops_as_clips = rearrange(torch.stack(views, dim=1), "b crop t c h w -> (b crop) t c h w")
    mean, std = (rearrange(torch.tensor(v, device=clips.device), "c -> c 1 1") for v in (spec.mean, spec.std))
    return (crops_as_clips.float() / 255 - mean) / std


def _cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale frames (...,H,W) with their aspect until they just cover ``height`` x ``width``."""
    scale = max(height / frames.shape[-2], width / frames.shape[-1])
    size = [round(frames.shape[-2] * scale), round(frames.shape[-1] * scale)]
    if size == list(frames.shape[-2:]):
        return frames
    resized: Tensor = transforms.resize(frames, size, antialias=True)
    return resized
