"""Sizes and other facts of a backbone, read from its modules, and which modules cannot be a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from vlmodels.sites import Tower


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """Sizes and other facts of a backbone.

    ``weights`` is a pretrained tag, a file path or "" (random); ``joint`` means that the video tower gets one
    sequence of all frames' patches (ViCLIP) instead of one sequence per frame (CLIP).
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
    joint: bool = False

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


def refuse_unknown_towers(clip: Any, text: Any, name: str) -> None:
    """Raise UserError unless ``Backbone`` can run both towers; the message says what it cannot run."""
    problems: list[str] = []
    visual: Any = getattr(clip, "visual", None)
    if not isinstance(visual, VisionTransformer):
        problems.append(f"its image tower is {type(visual).__name__}, not open_clip's VisionTransformer")
    elif visual.attn_pool is not None or visual.pool_type != "tok":
        problems.append("its image tower does not pool by the class token")
    if getattr(text, "attn_mask", None) is None or getattr(text, "cls_emb", None) is not None:
        problems.append(f"its text tower ({type(text).__name__}) is not a plain causal one")
    elif getattr(text, "text_pool_type", getattr(text, "pool_type", None)) != "argmax":
        problems.append("its text tower does not pool at the end token")
    elif text.text_projection is None:
        problems.append("its text tower has no projection")
    blocks = [b for t in (visual, text) if hasattr(t, "transformer") for b in t.transformer.resblocks]
    if not problems and not all(type(block) is ResidualAttentionBlock for block in blocks):
        problems.append("its blocks are not open_clip's standard attention blocks")
    if problems:
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(problems)}")


def describe_towers(clip: Any, text: Any, *, name: str, weights: str, frames: int) -> BackboneSpec:
    """Read the facts of a backbone from its modules."""
    visual = clip.visual
    video_blocks, text_blocks = visual.transformer.resblocks, text.transformer.resblocks
    preprocess = getattr(visual, "preprocess_cfg", {})
    return BackboneSpec(
        name=name,
        weights=weights,
        frames=frames,
        video_layers=len(video_blocks),
        video_width=visual.transformer.width,
        video_heads=video_blocks[0].attn.num_heads,
        text_layers=len(text_blocks),
        text_width=text.transformer.width,
        text_heads=text_blocks[0].attn.num_heads,
        embed_dim=visual.output_dim,
        image_size=tuple(visual.image_size),
        patch=tuple(visual.patch_size),
        context_length=text.context_length,
        mean=tuple(preprocess.get("mean", OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get("std", OPENAI_DATASET_STD)),
        joint=hasattr(visual, "temporal_positional_embedding"),
    )
