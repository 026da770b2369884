"""Tiny models of every family of backbones, with random weights, a grid that is not square where the family can."""

from __future__ import annotations

import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import nn

from vlmodels.backbone import Backbone

EMBED, CONTEXT = 40, 20
FAMILIES = ("siglip", "pe", "eva02", "clipa")


def tiny_family(family, *, seed=0):
    """A ``CustomTextCLIP`` of the family's parts: 3 blocks a tower, widths of 64 and 48."""
    torch.manual_seed(seed)
    text = {"context_length": CONTEXT, "width": 48, "heads": 3, "layers": 3}
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
    if family != "clipa":
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


def _siglip():
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=(16, 24),
        patch_size=8,
        embed_dim=64,
        depth=3,
        num_heads=2,
        class_token=False,
        global_pool="map",
        num_classes=EMBED,  # SigLIP has none; the tiny joint space has another width than the tower
    )


def _eva(**options):
    from timm.models.eva import Eva

    sizes = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}
    return Eva(**sizes, num_classes=EMBED, use_rot_pos_emb=True, ref_feat_shape=(2, 3), **options)


def _pe():
    return _eva(
        global_pool="map",
        attn_type="rope",
        use_pre_transformer_norm=True,
        rope_grid_offset=1.0,
        rope_grid_indexing="xy",
        attn_pool_num_heads=4,
        init_values=0.1,
    )


def _eva02():
    return _eva(
        global_pool="token", qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, mlp_ratio=8 / 3
    )


_TRUNKS = {"siglip": _siglip, "pe": _pe, "eva02": _eva02}


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
