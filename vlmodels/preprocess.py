"""From stored frames to what a backbone sees in evaluation: resize, crops along the long side, normalise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.transforms.v2 import functional as transforms

from vlmodels.resize import stored_short_side

if TYPE_CHECKING:
    from torch import Tensor

    from vlmodels.spec import BackboneSpec

CROPS: dict[int, tuple[float, ...]] = {1: (0.5,), 3: (0, 0.5, 1), 4: (0, 0.25, 0.5, 1)}
"""Where the spatial views of a clip lie, as parts of what the long side has more than the crop."""


def eval_views(clips: Tensor, spec: BackboneSpec, *, crops: int = 1) -> Tensor:
    """Turn uint8 clips (B,T,H,W,3) into normalised views (B*crops,T,3,h,w), the crops of a clip side by side.

    One crop is the centre of frames whose short side is 256/224 of the crop's (for small sizes rounded up as
    stored frames are); three and four lie along the long side of frames that just cover the crop: the published
    test views of ViFi-CLIP and its descendants, and of M2-CLIP on K400, whose four are not evenly spaced.
    """
    if crops not in CROPS:
        raise ValueError(f"crops may be {', '.join(map(str, CROPS))}, not {crops}")
    height, width = spec.image_size
    shape = (stored_short_side(height), stored_short_side(width)) if crops == 1 else (height, width)
    frames = _cover(clips.movedim(-1, -3), *shape)
    down, right = frames.shape[-2] - height, frames.shape[-1] - width
    places = [(int(down * part), int(right * part)) for part in CROPS[crops]]
    views = [frames[..., top : top + height, left : left + width] for top, left in places]
    mean, std = (torch.tensor(v, device=clips.device).view(3, 1, 1) for v in (spec.mean, spec.std))
    return (torch.stack(views, dim=1).flatten(0, 1).float() / 255 - mean) / std


def _cover(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale frames (...,H,W), aspect kept, until they just cover ``height`` x ``width``."""
    scale = max(height / frames.shape[-2], width / frames.shape[-1])
    size = [round(frames.shape[-2] * scale), round(frames.shape[-1] * scale)]
    if size == list(frames.shape[-2:]):
        return frames
    resized: Tensor = transforms.resize(frames, size, antialias=True)
    return resized
