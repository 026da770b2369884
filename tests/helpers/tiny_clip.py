"""A tiny CLIP of stock open_clip parts, with a grid that is not square, and short runs on it."""

from __future__ import annotations

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer

from tests.helpers.tiny_families import tiny_family_backbone
from vlmodels.backbone import Backbone
from vlmodels.viclip import add_temporal_table

CLASSES = ("riding a bike", "drinking_tea", "jump")
DESCRIPTIONS = {
    kind: {name: [f"A video about {name} {kind} {i}." for i in range(3)] for name in CLASSES}
    for kind in ("spatial", "temporal")
}


def tiny_clip(*, seed=0, video_layers=3, text_layers=3, custom_text=False, **vision):
    torch.manual_seed(seed)
    cls = CustomTextCLIP if custom_text else CLIP
    return cls(
        embed_dim=40,
        vision_cfg=CLIPVisionCfg(
            **{"image_size": (16, 24), "patch_size": 8, "width": 64, "head_width": 32, "layers": video_layers} | vision
        ),
        text_cfg=CLIPTextCfg(context_length=20, width=48, heads=3, layers=text_layers),
        quick_gelu=True,
    )


def tiny_backbone(*, joint=False, family="clip", **kwargs):
    """A CLIP, or with ``joint`` a ViCLIP whose temporal table is not zero, or another family's model."""
    if family not in ("clip", "viclip"):
        return tiny_family_backbone(family, **kwargs)
    joint = joint or family == "viclip"
    model = tiny_clip(**kwargs)
    if joint:
        torch.nn.init.normal_(add_temporal_table(model, 4).visual.temporal_positional_embedding, std=0.2)
    name = "tiny-viclip" if joint else "tiny"
    return Backbone(model, SimpleTokenizer(context_length=20), name=name, weights="", frames=4)


def tiny_frames(clips=2, frames=3, *, seed=1, size=(16, 24)):
    return torch.randn(clips, frames, 3, *size, generator=torch.Generator().manual_seed(seed))


def tiny_method(cls, config=None, **kwargs):
    backbone = tiny_backbone(**kwargs)
    torch.manual_seed(2)
    method = cls(backbone, config, CLASSES)
    method.set_classes(CLASSES, DESCRIPTIONS)
    return method


def disturb(method, scale=0.1, seed=3):
    """Move every trainable parameter away from its start, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.trainable_parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return method


def train(method, steps=20, *, lr=1e-3, seed=4, call=None):
    """Losses of ``steps`` AdamW steps on random clips with random labels: a number per step."""
    torch.manual_seed(seed)
    method.train()
    optimizer = torch.optim.AdamW(method.trainable_parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-3)
    frames, labels = tiny_frames(6, 2, seed=seed), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = []
    for _ in range(steps):
        loss = sum(method.losses((call or method)(frames, labels), labels).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
