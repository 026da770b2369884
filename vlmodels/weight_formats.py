"""Weight files by the names of those who publish them: Meta's PE-Core, Apple's MobileCLIP-B, Google's SigLIP.

Each is told by its names, and its tensors get open_clip's. A name that no rule knows stays, so strict loading refuses
it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by open_clip's names; those of a format that is not known unchanged."""
    for has, convert in _FORMATS:
        if has in state:
            return dict(convert(state))
    return dict(state)


class _Named(dict[str, "Tensor"]):
    """Tensors by name; a second one of a name gets another, so that strict loading refuses it."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(f"{name} (twice)" if name in self else name, value)


def hint(state: Mapping[str, Tensor], name: str) -> str:
    """Return which files hold the weights of an open_clip model, for names of a format that is not read; else ""."""
    foreign = next((what for start, what in _NOT_READ.items() if any(key.startswith(start) for key in state)), "")
    if not foreign:
        return ""
    tags = list_pretrained_tags_by_model(name)
    hubs = dict.fromkeys(str(get_pretrained_cfg(name, tag).get("hf_hub") or "").rstrip("/") for tag in tags)
    known = ", ".join(hub for hub in hubs if hub)
    where = f"that of {known} on the Hugging Face hub" if known else "one that open_clip saved"
    return f"; it has {foreign} names: download open_clip's file instead (open_clip_model.safetensors), {where}"


def _from_pe(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Meta's PE-Core: its image tower is timm's ``Eva``, its text tower has open_clip's names already."""
    found = _Named()
    for name, value in state.items():
        if not name.startswith("visual."):
            found[name] = value
            continue
        own = _renamed(name.removeprefix("visual."), _PE)
        if own.startswith("attn_pool.in_proj_"):
            kind, (query, rest) = own.removeprefix("attn_pool.in_proj_"), _first_third(value)
            found[_TRUNK + f"attn_pool.q.{kind}"], found[_TRUNK + f"attn_pool.kv.{kind}"] = query, rest
        elif own == "proj":  # a matrix, where timm has a linear layer
            found[_TRUNK + "head.weight"] = value.T.contiguous()
            found[_TRUNK + "head.bias"] = value.new_zeros(value.shape[-1])
        else:
            found[_TRUNK + own] = _with_leading(value, 3) if own in ("cls_token", "pos_embed") else value
    return found


def _from_mobileclip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Apple's MobileCLIP-B: its image tower is timm's ``VisionTransformer`` behind a convolutional stem."""
    found = _Named()
    for name, value in state.items():
        if name.startswith("image_encoder.model."):
            own = _TRUNK + _renamed(name.removeprefix("image_encoder.model."), _MOBILE_IMAGE)
        else:
            own = _renamed(name, _MOBILE_TEXT) if name.startswith("text_encoder.") else name
        if own == _TRUNK + "classifier.proj":
            found[_TRUNK + "head.weight"] = value.T.contiguous()
            found[_TRUNK + "head.bias"] = value.new_zeros(value.shape[-1])
        elif own.endswith(".pos_embed.pos_embed") and value.ndim == 4:  # (1,1,n,D)
            if own.startswith(_TRUNK):
                found[_TRUNK + "pos_embed"] = value[0]
            else:
                found["text.positional_embedding"] = value[0, 0]
        else:
            found[own] = value
    return found


def _from_siglip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename SigLIP and SigLIP 2 as ``transformers`` saves them, whose queries, keys and values are apart."""
    found = _Named()
    for name, value in _packed(state).items():
        own = _renamed(name, _SIGLIP_IMAGE if name.startswith("vision_model.") else _SIGLIP_TEXT)
        if own.startswith(_TRUNK + "attn_pool.in_proj_"):
            kind, (query, rest) = own.rpartition("in_proj_")[2], _first_third(value)
            found[_TRUNK + f"attn_pool.q.{kind}"], found[_TRUNK + f"attn_pool.kv.{kind}"] = query, rest
        else:
            found[own] = _with_leading(value, 3) if own == _TRUNK + "pos_embed" else value
    return found


def _packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join queries, keys and values of a block to one tensor; where one lacks or has another shape, none is joined."""
    found = dict(state)
    for name, query in state.items():
        head, place, kind = name.partition(".self_attn.q_proj.")
        names = [f"{head}.self_attn.{part}_proj.{kind}" for part in "qkv"]
        if place and all(one in state and state[one].shape == query.shape for one in names):
            found[f"{head}.self_attn.qkv_proj.{kind}"] = torch.cat([found.pop(one) for one in names])
    return found


def _renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """Apply rules one after the other: a pattern at the start of a name or behind a dot, and what takes its place."""
    for pattern, replacement in rules:
        name = re.sub(rf"(?:^|(?<=\.)){pattern}", replacement, name)
    return name


def _first_third(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the queries' part of a packed weight or bias, and the rest."""
    third = packed.shape[0] // 3
    return packed[:third].clone(), packed[third:].clone()


def _with_leading(value: Tensor, axes: int) -> Tensor:
    """Return a tensor with axes of length 1 before its own."""
    return value.reshape(*([1] * (axes - value.ndim)), *value.shape)


_TRUNK = "visual.trunk."
# timm's eva.py (``_convert_pe``) has the same table
_PE = (
    (r"attn_pool\.attn\.out_proj", "attn_pool.proj"),
    (r"attn_pool\.attn\.", "attn_pool."),
    (r"attn_pool\.layernorm", "attn_pool.norm"),
    (r"attn_pool\.probe", "attn_pool.latent"),
    (r"conv1\.", "patch_embed.proj."),
    (r"class_embedding$", "cls_token"),
    (r"positional_embedding$", "pos_embed"),
    (r"transformer\.resblocks\.", "blocks."),
    (r"ln_pre\.", "norm_pre."),
    (r"ln_post\.", "norm."),
    (r"ln_([12])\.", r"norm\1."),
    (r"ls_([12])\.gamma", r"gamma_\1"),
    (r"attn\.in_proj_", "attn.qkv."),
    (r"attn\.out_proj", "attn.proj"),
    (r"mlp\.c_fc", "mlp.fc1"),
    (r"mlp\.c_proj", "mlp.fc2"),
)
# timm's vision_transformer_hybrid.py (``_convert_mobileclip``) and open_clip's convert.py have the same tables
_MOBILE_IMAGE = (
    (r"patch_emb\.", "patch_embed.backbone."),
    (r"block\.conv\.", "conv."),
    (r"block\.norm\.", "bn."),
    (r"post_transformer_norm\.", "norm."),
    (r"pre_norm_mha\.0\.", "norm1."),
    (r"pre_norm_mha\.1\.", "attn."),
    (r"pre_norm_ffn\.0\.", "norm2."),
    (r"pre_norm_ffn\.1\.", "mlp.fc1."),
    (r"pre_norm_ffn\.4\.", "mlp.fc2."),
    (r"qkv_proj\.", "qkv."),
    (r"out_proj\.", "proj."),
    (r"transformer\.", "blocks."),
)
_MOBILE_TEXT = (
    (r"text_encoder\.", "text."),
    (r"projection_layer$", "text_projection"),
    (r"embedding_layer\.", "token_embedding."),
    (r"final_layer_norm\.", "ln_final."),
    (r"pre_norm_mha\.0\.", "ln_1."),
    (r"pre_norm_mha\.1\.", "attn."),
    (r"pre_norm_ffn\.0\.", "ln_2."),
    (r"pre_norm_ffn\.1\.", "mlp.c_fc."),
    (r"pre_norm_ffn\.4\.", "mlp.c_proj."),
    (r"qkv_proj\.", "in_proj_"),
    (r"transformer\.", "transformer.resblocks."),
)
_SIGLIP_IMAGE = (
    (r"vision_model\.", _TRUNK),
    (r"embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"embeddings\.position_embedding\.weight", "pos_embed"),
    (r"encoder\.layers\.", "blocks."),
    (r"post_layernorm\.", "norm."),
    (r"layer_norm([12])\.", r"norm\1."),
    (r"self_attn\.qkv_proj\.", "attn.qkv."),
    (r"self_attn\.out_proj\.", "attn.proj."),
    (r"head\.probe", "attn_pool.latent"),
    (r"head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"head\.attention\.", "attn_pool."),
    (r"head\.layernorm\.", "attn_pool.norm."),
    (r"head\.mlp\.", "attn_pool.mlp."),
)
_SIGLIP_TEXT = (
    (r"text_model\.", "text."),
    (r"embeddings\.token_embedding\.", "token_embedding."),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"encoder\.layers\.", "transformer.resblocks."),
    (r"final_layer_norm\.", "ln_final."),
    (r"layer_norm([12])\.", r"ln_\1."),
    (r"self_attn\.qkv_proj\.", "attn.in_proj_"),
    (r"self_attn\.out_proj\.", "attn.out_proj."),
    (r"mlp\.fc1\.", "mlp.c_fc."),
    (r"mlp\.fc2\.", "mlp.c_proj."),
    (r"head\.", "text_projection."),
)
_FORMATS = (
    ("visual.attn_pool.probe", _from_pe),
    ("image_encoder.model.patch_emb.0.block.conv.weight", _from_mobileclip),
    ("vision_model.head.probe", _from_siglip),
)
# how the names of formats begin that are not read, after conversion
_NOT_READ = {
    "vision_model.": "Hugging Face's",
    "text_model.": "Hugging Face's",
    "image_encoder.model.": "Apple's",
    "visual.blocks.": "the EVA-CLIP repository's",
}
