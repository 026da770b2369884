"""LoRA on the packed attention projections."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.lora import LoRA

Config = LoRA.Config


@pytest.mark.parametrize("backbone", ["ViT-B-16-quickgelu", "ViCLIP-B-16"])
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(), 9_437_184),  # the published 9.4 M
        (Config(towers="both", rank=153), 9_400_320),  # the other reading of 9.4 M
        (Config(layers="8-12", rank=16), 5 * 4 * 768 * 16),
        (Config(towers="text", targets="q,k,v", rank=8), 12 * 6 * 512 * 8),
        (Config(towers="both", layers="8-12", text_layers="1-2", rank=8), 5 * 4 * 768 * 8 + 2 * 4 * 512 * 8),
    ],
)
def test_parameter_count(backbone, config, expected):
    with torch.device("meta"):
        method = LoRA(create(backbone, weights=None), config)
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


@torch.no_grad()
@pytest.mark.parametrize("targets", ["q,v", "q,k,v"])
@pytest.mark.parametrize(("alpha", "scale"), [(0.0, 1.0), (2.0, 0.25)])
def test_projections_are_the_equation(targets, alpha, scale):
    """``x (W + alpha/r B A)^T + b`` for the chosen ones, attention spelt out head by head."""
    method = disturb(tiny_method(LoRA, Config(layers="3", rank=8, alpha=alpha, targets=targets)).eval())
    bare, frames = tiny_backbone(), tiny_frames(1, 2)
    x, block, update = bare.model.visual._embeds(frames[0]), bare.block("video", 3).module, method.video_update["3"]
    for below in bare.model.visual.transformer.resblocks[:2]:
        x = below(x)
    normed, projected = block.ln_1(x), {}
    for number, name in enumerate("qkv"):
        rows = slice(64 * number, 64 * number + 64)
        projected[name] = normed @ block.attn.in_proj_weight[rows].T + block.attn.in_proj_bias[rows]
        if name in targets:
            projected[name] = projected[name] + scale * (normed @ update.down[name].T @ update.up[name].T)
    heads = []
    for head in (slice(0, 32), slice(32, 64)):
        query, key, value = (projected[name][..., head] for name in "qkv")
        heads.append((query @ key.transpose(1, 2) / 32**0.5).softmax(-1) @ value)
    u = x + block.attn.out_proj(torch.cat(heads, -1))
    expected = u + block.mlp(block.ln_2(u))
    assert torch.allclose(method.backbone.encode_video(frames).hidden, expected, atol=1e-5)


def test_a_range_for_the_text_tower_is_only_for_both_towers():
    with pytest.raises(UserError, match="text_layers=2 needs towers=both; with towers=video, set layers"):
        Config(text_layers="2")


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_starts_as_the_backbone_but_for_rounding(joint):
    method, bare = tiny_method(LoRA, Config(towers="both"), joint=joint), tiny_backbone(joint=joint)
    texts = bare.tokenize(list(CLASSES))
    assert torch.allclose(method.backbone.encode_text(texts), bare.encode_text(texts), atol=1e-5)
    assert torch.allclose(
        method.backbone.encode_video(tiny_frames()).clip, bare.encode_video(tiny_frames()).clip, atol=1e-5
    )
    assert all(update.down["q"].any() and not update.up["q"].any() for update in method.video_update.values())


def test_text_stays_causal():
    method = disturb(tiny_method(LoRA, Config(towers="text"))).eval()
    tokens = method.backbone.tokenize(["jump over a fence"])
    other = tokens.clone()
    other[:, 3:] = 5
    with torch.no_grad():
        found, changed = method.backbone.text_states(tokens), method.backbone.text_states(other)
    assert torch.allclose(found[:, :3], changed[:, :3], atol=1e-5)
    assert not torch.allclose(found[:, 3:], changed[:, 3:], atol=1e-2)


@pytest.mark.parametrize(("towers", "runs_of_text"), [("video", [1, 2, 3]), ("both", [1, 2, 3, 3, 3])])
def test_blocks_below_the_range_keep_no_graph_and_run_once_for_text(towers, runs_of_text):
    method = tiny_method(LoRA, Config(layers="3", towers=towers)).train()
    model, runs, graphs = method.backbone.model, [], []
    for index, (video, text) in enumerate(
        zip(model.visual.transformer.resblocks, model.transformer.resblocks, strict=True), 1
    ):
        video.mlp.register_forward_hook(lambda _m, _a, out: graphs.append(out.requires_grad))
        text.mlp.register_forward_hook(lambda _m, _a, _o, i=index: runs.append(i))
    for _ in range(3):
        method(tiny_frames())
    assert graphs == [False, False, True] * 3
    assert runs == runs_of_text


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError, match=r"layers='3-2'.*rank=0 must.*alpha=-1.0 must"):
        Config(layers="3-2", rank=0, alpha=-1.0)
    with pytest.raises(UserError, match=r"targets='q' is not one of q,v, q,k,v"):
        Config(targets="q")
    tiny_method(LoRA, Config(layers="4"), video_layers=4)
    with pytest.raises(UserError, match="layers=4-4 does not fit the text tower of tiny"):
        tiny_method(LoRA, Config(layers="4", towers="both"), video_layers=4)


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(LoRA, Config(rank=16)), 60, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]
