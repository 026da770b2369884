"""AdaptFormer as the MSTA paper uses it."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.adaptformer import AdaptFormer

Config = AdaptFormer.Config


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(), 7_885_824),  # the published 7.9 M
        (Config(dims=64, layers="8-12"), 5 * (2 * 768 * 64 + 64 + 768 + 2 * 512 * 64 + 64 + 512)),
    ],
)
def test_parameter_count(config, expected):
    with torch.device("meta"):
        method = AdaptFormer(create("ViT-B-16-quickgelu", weights=None), config)
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


@torch.no_grad()
def test_out_is_the_equation():
    """``out = u + MLP(ln_2(u)) + s (Wup relu(Wdown u + b) + b')`` with u after the attention."""
    method = disturb(tiny_method(AdaptFormer, Config(dims=16, layers="3", scale=0.3)).eval())
    bare, frames = tiny_backbone(), tiny_frames(1, 2)
    x, last = frames[0], bare.model.visual.transformer.resblocks[2]
    x = bare.model.visual._embeds(x)
    for block in bare.model.visual.transformer.resblocks[:2]:
        x = block(x)
    u = x + last.attention(last.ln_1(x))
    part = method.video_adapter["3"]
    hidden = torch.relu(u @ part.down.weight.T + part.down.bias)
    out = u + last.mlp(last.ln_2(u)) + 0.3 * (hidden @ part.up.weight.T + part.up.bias)
    assert torch.allclose(method.backbone.encode_video(frames).hidden, out, atol=1e-5)


def test_each_tower_has_its_own_depth_under_all():
    method = tiny_method(AdaptFormer, Config(dims=8), video_layers=4, text_layers=2)
    assert (list(method.video_adapter), list(method.text_adapter)) == (["1", "2", "3", "4"], ["1", "2"])
    with pytest.raises(UserError, match="layers=2-4 does not fit the text tower of tiny, which has 2 layers"):
        tiny_method(AdaptFormer, Config(layers="2-4"), video_layers=4, text_layers=2)


def test_towers_may_have_ranges_of_their_own():
    method = tiny_method(AdaptFormer, Config(dims=8, layers="3-4", text_layers="2"), video_layers=4, text_layers=2)
    assert (list(method.video_adapter), list(method.text_adapter)) == (["3", "4"], ["2"])
    with pytest.raises(UserError, match=r"layers='0' is not a range.*text_layers='x' is not a range"):
        Config(layers="0", text_layers="x")


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(AdaptFormer, Config(dims=16, scale=1.0)), 60, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]
