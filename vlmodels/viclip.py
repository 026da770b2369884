"""ViCLIP: CLIP's towers over one joint space-time sequence, a temporal position table, and a text context of 32.

Wang et al., InternVid, ICLR 2024. Its modules are open_clip's; only the table is new, so a ViCLIP's state has
open_clip's names and ``visual.temporal_positional_embedding`` (1,8,D). ``vlmodels/layout.py`` builds the sequence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

BASES: Mapping[str, str] = {"ViCLIP-B-16": "ViT-B-16-quickgelu", "ViCLIP-L-14": "ViT-L-14-quickgelu"}
CONTEXT = 32
FRAMES = 8  # rows of the released temporal tables
TEMPORAL_TABLE = "visual.temporal_positional_embedding"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def build(config: Mapping[str, Any], frames: int = FRAMES) -> CLIP:
    """Build a random ViCLIP of an open_clip model's configuration; its temporal table has ``frames`` rows of zeros."""
    config = {**config, "text_cfg": {**config["text_cfg"], "context_length": CONTEXT}}
    return add_temporal_table(CLIP(**config), frames)


def add_temporal_table(model: CLIP, frames: int = FRAMES) -> CLIP:
    """Turn a CLIP into a ViCLIP that equals it on one frame: a temporal table of zeros and ImageNet's statistics."""
    visual: Any = model.visual
    visual.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, visual.transformer.width))
    use_imagenet_statistics(model)
    return model


def use_imagenet_statistics(model: nn.Module) -> nn.Module:
    """Set ImageNet's mean and deviation for a model's frames, as ViCLIP and ViFi-CLIP use them."""
    visual: Any = model.visual
    visual.preprocess_cfg = {**getattr(visual, "preprocess_cfg", {}), **IMAGENET}
    return model


def is_released(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of a released ViCLIP checkpoint, by their names."""
    return any(name.startswith("vision_encoder.") for name in state)


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a released checkpoint's tensors.

    The temperature becomes a logit scale, the patch kernel loses its time axis of length 1, and a text table of 77 rows
    is cut to 32.

    Raises:
        UserError: the temperature is not above 0.
    """
    renamed = {}
    for name, value in state.items():
        own = re.sub(r"^text_encoder\.", "", re.sub(r"^vision_encoder\.", "visual.", name))
        if own == "temp":
            if not bool((value > 0).all()):
                raise UserError("the temperature of this ViCLIP checkpoint is not above 0; download or copy it again")
            own, value = "logit_scale", -value.log()  # noqa: PLW2901
        elif own == "visual.conv1.weight" and value.ndim == 5 and value.shape[2] == 1:
            value = value[:, :, 0]  # noqa: PLW2901
        renamed[own] = value
    return _cut_context(renamed)


def from_clip(state: Mapping[str, Tensor], frames: int = FRAMES) -> dict[str, Tensor]:
    """Return a ViCLIP's tensors of a CLIP's: 32 rows of the text table, a temporal table of zeros if it has none."""
    width = state["visual.class_embedding"].numel() if "visual.class_embedding" in state else 0
    return _cut_context({TEMPORAL_TABLE: torch.zeros(1, frames, width), **state})


def _cut_context(state: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "positional_embedding"
    if name in state and state[name].ndim:  # other shapes are refused where the weights are loaded
        state[name] = state[name][:CONTEXT].clone()
    return state
