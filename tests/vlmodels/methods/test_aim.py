"""AIM: its block against the equations, attention along time, the temporal embedding, the published classifier."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.checkpoint import load_adapter, save_adapter
from vlmodels.clip import create
from vlmodels.clip_context import ClipContext
from vlmodels.errors import UserError
from vlmodels.layout import Tokens, join_tokens, split_tokens
from vlmodels.methods.aim import AIM, Adapter, TemporalAttention, TemporalEmbedding

Config = AIM.Config
NAMES = [str(i) for i in range(400)]
ADAPTERS = 36 * (2 * 768 * 192 + 192 + 768)


@pytest.mark.parametrize(
    ("config", "frames", "trainable", "gmacs"),
    [
        (Config(), 8, 10_657_536, 202.1),  # published: 11 M, 202
        (Config(), 16, ADAPTERS + 16 * 768, 404.6),
        (Config(layers="8-12"), 8, ADAPTERS * 5 // 12 + 8 * 768, None),
        (Config(head="linear"), 8, 10_657_536 + 2 * 768 + 768 * 400 + 400, 202.1),
    ],
)
def test_parameters_and_cost(config, frames, trainable, gmacs):
    with torch.device("meta"):
        method = AIM(create("ViT-B-16-quickgelu", weights=None, num_frames=frames), config, NAMES).eval()
        clip = torch.empty(1, frames, 3, 224, 224)
    assert sum(p.numel() for p in method.trainable_parameters()) == trainable
    if gmacs is not None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            method.encode_video(clip)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


def spelt(adapter, x):
    hidden = torch.nn.functional.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    return hidden @ adapter.up.weight.T + adapter.up.bias


def sequence(cls, patches, context):
    return join_tokens(Tokens(cls[:, :, None], patches, cls[:, :, None, :][:, :, :0]), context)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_a_block_is_the_equations(joint):
    """Attention along time place by place, then in space, each with the block's own weights, then the MLP."""
    method = disturb(tiny_method(AIM, Config(layers="3", scale=0.3), joint=joint), scale=0.3).eval()
    bare, context = tiny_backbone(joint=joint), ClipContext(1, 4, (2, 3), 3, "video", joint)
    block, seen = bare.block("video", 3).module, []
    method.backbone.block("video", 3).norm1.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    found = method.backbone.encode_video(tiny_frames(1, 4)).hidden
    x = seen[0]
    temporal, spatial, parallel = (part["3"] for part in (method.t_adapter, method.s_adapter, method.mlp_adapter))

    tokens = split_tokens(block.ln_1(x), context)
    cls, patches = torch.empty_like(tokens.prefix[:, :, 0]), torch.empty_like(tokens.patches)
    cls[0] = block.attention(tokens.prefix[:, :, 0])[0]
    for row in range(2):
        for column in range(3):
            patches[0, :, row, column] = block.attention(tokens.patches[:, :, row, column])[0]
    moved = x + spelt(temporal, sequence(cls, patches, context))
    y = block.attention(block.ln_1(moved))
    u = moved + y + spelt(spatial, y)
    normed = block.ln_2(u)
    assert torch.allclose(found, u + block.mlp(normed) + 0.3 * spelt(parallel, normed), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_attention_along_time_stays_at_its_place(joint):
    context, adapter = ClipContext(1, 4, (2, 3), 1, "video", joint), Adapter(64, 16)
    torch.nn.init.normal_(adapter.up.weight)
    hook = TemporalAttention(tiny_backbone().block("video", 1), adapter)
    cls, patches = torch.randn(1, 1 if joint else 4, 64), torch.randn(1, 4, 2, 3, 64)
    other = patches.clone()
    other[0, 2, 1, 0] += torch.randn(64)
    found, moved = (split_tokens(hook(sequence(cls, p, context), context), context) for p in (patches, other))
    differs = ~torch.isclose(found.patches[0], moved.patches[0], atol=1e-5).all(-1)
    assert {tuple(place) for place in differs.nonzero().tolist()} == {(t, 1, 0) for t in range(4)}
    assert torch.allclose(found.prefix[:, :, 0], moved.prefix[:, :, 0], atol=1e-5)


@torch.no_grad()
def test_tokens_that_another_method_appended_are_places_too():
    context, adapter = ClipContext(2, 4, (2, 3), 1, "video"), Adapter(64, 16)
    torch.nn.init.normal_(adapter.up.weight)
    hook, x = TemporalAttention(tiny_backbone().block("video", 1), adapter), torch.randn(8, 1 + 6 + 2, 64)
    with_more, without = hook(x, context), hook(x[:, :7], context)
    assert torch.allclose(with_more[:, :7], without, atol=1e-5)
    assert not torch.allclose(with_more[:, 7:], x[:, 7:], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_a_frames_tokens_get_its_row_of_the_embedding(joint):
    context, embedding = ClipContext(2, 3, (2, 3), 0, "video", joint), TemporalEmbedding(3, 64)
    torch.nn.init.normal_(embedding.table)
    cls, patches = torch.randn(2, 1 if joint else 3, 64), torch.randn(2, 3, 2, 3, 64)
    found = split_tokens(embedding(sequence(cls, patches, context), context), context)
    assert torch.allclose(found.patches, patches + embedding.table[None, :, None, None], atol=1e-6)
    assert torch.allclose(found.prefix[:, :, 0], cls if joint else cls + embedding.table, atol=1e-6)


@torch.no_grad()
def test_other_numbers_of_frames_are_interpolated():
    embedding = TemporalEmbedding(2, 4)
    embedding.table.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 4))

    def rows(frames):
        found = embedding(torch.zeros(frames, 7, 4), ClipContext(1, frames, (2, 3), 0, "video"))
        return found[:, 0, 0].tolist()

    assert rows(2) == [0, 1]
    assert rows(4) == [0, 0.25, 0.75, 1]
    assert rows(1) == [0.5]


def test_up_projections_and_the_embedding_start_at_zero():
    method = tiny_method(AIM)
    started = {name.split(".", 2)[-1] for name, p in method.adapter_state_dict().items() if p.any()}
    assert started == {"down.weight"}


def test_text_is_encoded_once():
    method, runs = tiny_method(AIM).train(), []
    method.backbone.model.transformer.resblocks[0].register_forward_hook(lambda _m, _a, _o: runs.append(1))
    for _ in range(3):
        method(tiny_frames())
    assert len(runs) == 1


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError, match=r"layers='0' is not a range.*reduction=0 must.*scale=0.0 must"):
        Config(layers="0", reduction=0, scale=0.0)
    with pytest.raises(UserError, match="layers=2-4 does not fit the video tower of tiny, which has 3 layers"):
        tiny_method(AIM, Config(layers="2-4"))
    with pytest.raises(UserError, match="reduction=65 is above the width of tiny, 64"):
        tiny_method(AIM, Config(reduction=65))


# --------------------------------------------------------------------------------------------- the classifier


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_classifier_reads_the_mean_of_the_normed_class_tokens(joint):
    method = disturb(tiny_method(AIM, Config(head="linear"), joint=joint)).eval()
    features = method.backbone.encode_video(tiny_frames())
    pooled = method.backbone.model.visual.ln_post(features.tokens.prefix[:, :, 0]).mean(1)
    expected = pooled @ method.head.linear.weight.T + method.head.linear.bias
    assert torch.allclose(method(tiny_frames()).logits.softmax(-1), expected.softmax(-1), atol=1e-5)
    method.train()
    assert not torch.equal(method(tiny_frames()).logits, method(tiny_frames()).logits)  # its dropout


@pytest.mark.parametrize(("head", "base"), [("text", set()), ("linear", {"weight", "bias"})])
def test_the_last_norm_trains_with_the_classifier_only(head, base):
    names = tiny_method(AIM, Config(head=head)).adapter_state_dict()
    assert {n for n in names if n.startswith("backbone.")} == {f"backbone.model.visual.ln_post.{kind}" for kind in base}


@pytest.mark.parametrize("joint", [False, True])
def test_the_published_preset_trains_saves_and_loads(joint, tmp_path):
    preset = AIM.presets["linear_head"]
    assert (preset.recipe.lr, preset.recipe.batch_size, preset.recipe.epochs) == (3e-4, 64, 30)
    method = tiny_method(AIM, preset.method, joint=joint)
    train(method, 3)
    save_adapter(tmp_path, method, classes=CLASSES)
    loaded = load_adapter(tmp_path, tiny_backbone(joint=joint)).method
    with torch.no_grad():
        assert torch.equal(loaded(tiny_frames()).logits, method.eval()(tiny_frames()).logits)


@pytest.mark.parametrize("head", ["text", "linear"])
def test_learns_the_clips_that_it_sees(head):
    losses = train(tiny_method(AIM, Config(head=head)), 60, lr=1e-2)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
