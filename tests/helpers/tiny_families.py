"""Tiny models of every family in whose towers methods act; random weights, a grid that is not square."""

from __future__ import annotations

import functools

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from vlmodels.backbone import Backbone

EMBED, CONTEXT = 40, 20
_END = 49407
FAMILIES = ("siglip", "pe", "pe_g", "eva02", "eva02_e", "clipa", "metaclip2", "mobileclip", "vitamin")


def tiny_family(family, *, seed=0):
    """A ``CustomTextCLIP`` of the family's parts: 3 blocks a tower, widths of 64 and 48."""
    torch.manual_seed(seed)
    text = {"context_length": CONTEXT, "width": 48, "heads": 3, "layers": 3}
    if family == "metaclip2":
        text |= {"pool_type": "eos", "eos_id": _END}
    if family in ("siglip", "clipa"):
        text |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": family == "siglip"}
    vision = {"image_size": (16, 24), "patch_size": 8, "width": 64, "head_width": 32, "layers": 3}
    if family == "clipa":
        vision |= {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    model = CustomTextCLIP(
        embed_dim=EMBED,
        vision_cfg=CLIPVisionCfg(**vision),
        text_cfg=CLIPTextCfg(**text),
        init_logit_bias=-10 if family == "siglip" else None,
    )
    if family in _TRUNKS:
        model.visual = TimmModel(_TRUNKS[family]())
    _spread(model)
    return model


def tiny_family_backbone(family, *, seed=0, frames=4):
    return Backbone(
        tiny_family(family, seed=seed), SimpleTokenizer(context_length=CONTEXT), name=f"tiny-{family}", frames=frames
    )


class TimmModel(nn.Module):
    """open_clip's wrapper of the same name, around a trunk that timm has under no name."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk, self.head = trunk, nn.Sequential()

    def forward(self, images):
        return self.head(self.trunk(images))


_SIZES = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2, "num_classes": EMBED}


def _vit(**options):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**{**_SIZES, **options})


def _siglip():  # which has no head; the tiny joint space has another width than the tower
    return _vit(class_token=False, global_pool="map")


def _mobileclip():
    return _vit(global_pool="token", no_embed_class=True, **_stem())


def _vitamin():
    from timm.models.vitamin import GeGluMlp

    return _vit(class_token=False, global_pool="avg", **_stem(), mlp_layer=GeGluMlp, mlp_ratio=2.0)


def _stem():
    """Convolutions that make the patches."""
    from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed

    convolutions = ConvStem(depth=2, channels=(32, 64), stride=(4, 2), kernel_size=(4, 2), padding=0)
    return {"patch_size": 1, "embed_layer": functools.partial(HybridEmbed, backbone=convolutions, proj=False)}


def _eva(**options):
    from timm.models.eva import Eva

    return Eva(**{**_SIZES, **options})


_ROPE = {"use_rot_pos_emb": True, "ref_feat_shape": (2, 3)}


def _eva02_e():
    return _eva(global_pool="token", use_post_norm=True)


def _pe(**options):
    return _eva(
        **_ROPE,
        **options,
        global_pool="map",
        attn_type="rope",
        use_pre_transformer_norm=True,
        rope_grid_offset=1.0,
        rope_grid_indexing="xy",
        attn_pool_num_heads=4,
        init_values=0.1,
    )


def know_tiny_pe(monkeypatch):
    """Let timm know the tiny Perception Encoder, and open_clip a model with it, "tiny-pe"; return its configuration."""
    import open_clip.factory
    from timm.models import _registry

    def built(num_classes=0, global_pool="map", **_):
        return _pe(num_classes=num_classes, img_size=(32, 32))

    monkeypatch.setitem(_registry._model_entrypoints, "tiny_pe", built)
    tower = {"image_size": 32, "timm_model_name": "tiny_pe", "timm_pool": "map", "timm_proj": None}
    text = {"context_length": CONTEXT, "width": 48, "heads": 3, "layers": 3}
    config = {"embed_dim": EMBED, "vision_cfg": tower, "text_cfg": text, "custom_text": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-pe", config)
    return config


def _pe_g():
    return _pe(class_token=False)


def _eva02():
    return _eva(
        **_ROPE,
        global_pool="token",
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        mlp_ratio=8 / 3,
    )


_TRUNKS = {
    "siglip": _siglip,
    "pe": _pe,
    "pe_g": _pe_g,
    "eva02": _eva02,
    "eva02_e": _eva02_e,
    "mobileclip": _mobileclip,
    "vitamin": _vitamin,
}


@torch.no_grad()
def _spread(model):
    """Move what starts at zero or one, so that a part that is left out shows; heads of timm start near zero."""
    for name, parameter in model.named_parameters():
        if name.startswith("logit_"):
            continue
        if parameter.ndim <= 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif parameter.std() < 0.05:
            parameter.normal_(std=0.05 if "embed" in name else parameter.shape[-1] ** -0.5)
