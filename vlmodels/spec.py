"""Sizes and other facts of a backbone, read from its modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

if TYPE_CHECKING:
    from vlmodels.clip_context import Tower
    from vlmodels.families.views import TextView, VideoView


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """Sizes and other facts of a backbone.

    ``weights`` is a pretrained tag, a file path or "" (random); ``joint`` means that the video tower gets one
    sequence of all frames' patches (ViCLIP) instead of one sequence per frame (CLIP); ``prefix`` counts the tokens
    before the patches: a class token, or none. ``mean`` and ``std`` are those called ``statistics``.
    """

    name: str
    weights: str
    frames: int
    video_layers: int
    video_width: int
    video_heads: int
    text_layers: int
    text_width: int
    text_heads: int
    embed_dim: int
    image_size: tuple[int, int]
    patch: tuple[int, int]
    context_length: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics: str = "own"
    joint: bool = False
    prefix: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch[0], self.image_size[1] // self.patch[1]

    def layers(self, tower: Tower) -> int:
        """Return the number of blocks of a tower."""
        return self.video_layers if tower == "video" else self.text_layers

    def width(self, tower: Tower) -> int:
        """Return the width D of a tower."""
        return self.video_width if tower == "video" else self.text_width


def describe_towers(
    clip: Any,
    video: VideoView,
    text: TextView,
    *,
    name: str,
    weights: str,
    frames: int,
    context_length: int,
    statistics: str,
) -> BackboneSpec:
    """Read the facts of a backbone from its model and the views of its towers."""
    preprocess = getattr(clip.visual, "preprocess_cfg", {})
    (height, width), (rows, columns) = video.image_size, video.grid
    return BackboneSpec(
        name=name,
        weights=weights,
        frames=frames,
        video_layers=len(video.blocks),
        video_width=video.width,
        video_heads=video.blocks[0].heads,
        text_layers=text.layers,
        text_width=text.width,
        text_heads=text.heads,
        embed_dim=video.embed_dim,
        image_size=video.image_size,
        patch=(height // rows, width // columns),
        context_length=context_length,
        mean=tuple(preprocess.get("mean", OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_DATASET_STD)),
        statistics=statistics,
        joint=video.joint,
        prefix=video.prefix,
    )
