"""Families of backbones: one small file each, with views of its towers; methods see the views alone.

A new family is a file with a ``VideoView`` or a ``TextView``, and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlmodels.families.views import TextView, VideoView

# image towers of timm that are no sequence of plain attention blocks, by the start of their names
_TIMM_REFUSED = {
    "convnext": "a ConvNeXt",
    "fastvit": "a FastViT",
    "swin": "a Swin Transformer",
    "vit_relpos": "a ViT whose attention adds relative positions",
}


def obstacles(config: Mapping[str, Any]) -> list[str]:
    """Return what this package cannot run in an open_clip model's configuration; empty if it can run all."""
    vision = config["vision_cfg"]
    timm = str(vision.get("timm_model_name") or "")
    found = {
        "its image tower is a ResNet": isinstance(vision.get("layers"), list),
        "its image tower pools by several queries": bool(vision.get("attentional_pool")),
        "it is a captioner": "multimodal_cfg" in config,
    }
    kinds = [kind for start, kind in _TIMM_REFUSED.items() if timm.startswith(start)]
    return [what for what, present in found.items() if present] + [f"its image tower is {kind}" for kind in kinds]


def view_towers(model: Any, name: str) -> tuple[VideoView, TextView]:
    """Return the views of a model's towers.

    Args:
        model: open_clip's ``CLIP`` or ``CustomTextCLIP``.
        name: of the model, for messages.

    Raises:
        UserError: a tower is of a kind that has no view; the message says what it is.
    """
    visual, text = getattr(model, "visual", None), getattr(model, "text", model)
    problems: list[str] = []
    video_view, text_view = _video(visual, problems), _text(text, problems)
    if problems or video_view is None or text_view is None:
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(problems)}")
    return video_view, text_view


def _video(visual: Any, problems: list[str]) -> VideoView | None:
    kind = type(visual).__name__
    if kind == "VisionTransformer":
        return _own_video(visual, problems)
    if kind != "TimmModel":
        problems.append(f"its image tower is {kind}, neither open_clip's VisionTransformer nor one of timm's")
        return None
    from vlmodels.families import timm_eva, timm_vit  # late: timm is imported for its own models only

    trunk = visual.trunk
    views: dict[tuple[str, str], type[timm_vit.TimmVideo]] = {
        ("VisionTransformer", "Block"): timm_vit.Video,
        ("Eva", "EvaBlock"): timm_eva.Video,
        ("Eva", "EvaBlockPostNorm"): timm_eva.Video,
    }
    blocks = {type(block).__name__ for block in getattr(trunk, "blocks", ())}
    view = views.get((type(trunk).__name__, blocks.pop())) if len(blocks) == 1 else None
    attention = {type(block.attn).__name__ for block in trunk.blocks} if view is not None else set()
    if view is None or attention - {"Attention", "AttentionRope", "EvaAttention"}:
        problems.append(f"its image tower is timm's {type(trunk).__name__} with blocks that have no view")
        return None
    gated = any(getattr(block.attn, "gate", None) is not None for block in trunk.blocks)
    grouped = any(getattr(block.attn, "num_kv_groups", 1) != 1 for block in trunk.blocks)
    if gated or grouped or getattr(trunk, "rope_mixed", False):
        problems.append("its image tower's attention is gated, shares keys, or rotates by layers")
        return None
    return view(visual)


def _own_video(visual: Any, problems: list[str]) -> VideoView | None:
    from vlmodels.families import open_clip_towers

    if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
        problems.append("its image tower pools neither by the class token nor by the mean")
    if not _are_standard(visual):
        problems.append("the blocks of its image tower are not open_clip's standard attention blocks")
    return None if problems else open_clip_towers.Video(visual)


def _text(text: Any, problems: list[str]) -> TextView | None:
    if type(text).__name__ == "HFTextEncoder":
        from vlmodels.families import hugging_face

        return hugging_face.Text(text)
    from vlmodels.families import open_clip_towers

    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    if getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False):
        problems.append(f"its text tower ({type(text).__name__}) has a class token or masks its padding")
    elif pool not in ("argmax", "last", "eos"):
        problems.append("its text tower pools neither at the end token nor at the last one")
    elif not _are_standard(text):
        problems.append("the blocks of its text tower are not open_clip's standard attention blocks")
    else:
        return open_clip_towers.Text(text)
    return None


def _are_standard(tower: Any) -> bool:
    """Return whether a tower of open_clip has its plain blocks."""
    from open_clip.transformer import ResidualAttentionBlock

    return all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks)
