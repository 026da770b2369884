from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.tiny_clip import tiny_backbone, tiny_clip, tiny_frames
from vlmodels.backbone import Backbone
from vlmodels.clip import create
from vlmodels.clip_context import ClipContext
from vlmodels.errors import UserError
from vlmodels.families.views import Call
from vlmodels.sites import run_block

TEXTS = ["a video of riding a bike.", "jump", "a video of somebody opening the door, slowly"]


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("variant", [{}, {"ls_init_value": 0.1}, {"no_ln_pre": True}, {"final_ln_after_pool": True}])
def test_towers_equal_open_clip_bit_for_bit(variant, custom_text):
    backbone, frames = tiny_backbone(custom_text=custom_text, **variant), tiny_frames(2, 3)
    # frozen too: torch chooses its attention kernel by requires_grad, even under no_grad
    plain = tiny_clip(custom_text=custom_text, **variant).eval().requires_grad_(False)
    tokens = backbone.tokenizer(TEXTS)
    with torch.no_grad():
        features = backbone.encode_video(frames)
        assert torch.equal(features.frame.flatten(0, 1), plain.encode_image(frames.flatten(0, 1)))
        assert torch.equal(features.clip, features.frame.mean(1))
        assert torch.equal(backbone.encode_text(tokens), plain.encode_text(tokens))
    assert features.tokens.patches.shape == (2, 3, 2, 3, 64)


def test_vit_b_16_equals_open_clip_bit_for_bit():
    backbone = create("ViT-B-16-quickgelu", weights=None)
    frames = torch.randn(1, 1, 3, 224, 224)
    tokens = backbone.tokenizer(TEXTS)
    with torch.no_grad():
        assert torch.equal(backbone.encode_video(frames).frame[0], backbone.model.encode_image(frames[0]))
        whole = backbone.model.encode_text(tokens)
        assert torch.equal(backbone.encode_text(tokens), whole)
        trimmed = backbone.tokenize(TEXTS)
        assert trimmed.shape[1] < 20
        assert torch.allclose(backbone.encode_text(trimmed), whole, atol=1e-4)


def test_text_is_cut_after_the_longest_end_token():
    backbone = tiny_backbone()
    tokens = backbone.tokenize(TEXTS)
    assert (tokens == 49407).any(0)[-1]
    with torch.no_grad():
        assert torch.allclose(backbone.encode_text(tokens), backbone.encode_text(backbone.tokenizer(TEXTS)), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_text_from_a_prefix_is_the_same(layers):
    backbone = tiny_backbone()
    tokens = backbone.tokenize(TEXTS)
    prefix = backbone.text_prefix(tokens, layers)
    assert not prefix.hidden.requires_grad
    assert torch.equal(backbone.encode_text(tokens, prefix=prefix), backbone.encode_text(tokens))


class Shift(nn.Module):
    """A hook that is visible: adds to what it gets, or gives a function of it."""

    def __init__(self, width, *, add):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, generator=torch.Generator().manual_seed(0)))
        self.add = add
        self.seen = []

    def forward(self, x, context):
        self.seen.append((context, x.shape))
        change = torch.tanh(x) * self.weight
        return x + change if self.add else change


REPLACING = ("tokens", "post_attn", "pre_mlp")
PARALLEL = ("parallel_attn", "parallel_mlp", "parallel_block", "parallel_block_ln")


def by_hand(site, block, x, mask, h):
    """The block's equations with the hook ``h`` where its site's description says."""

    def attn(z):
        return block.attention(z, attn_mask=mask)

    def mlp(u):
        return block.mlp(block.ln_2(u))

    if site == "tokens":
        return block(h(x), attn_mask=mask)
    if site == "parallel_block":
        return block(x, attn_mask=mask) + h(x)
    if site == "parallel_block_ln":
        return block(x, attn_mask=mask) + h(block.ln_1(x))
    u = {
        "post_attn": lambda: x + h(attn(block.ln_1(x))),
        "parallel_attn": lambda: x + attn(block.ln_1(x)) + h(x),
    }.get(site, lambda: x + attn(block.ln_1(x)))()
    if site == "pre_mlp":
        u = h(u)
    return u + mlp(u) + (h(u) if site == "parallel_mlp" else 0)


@pytest.mark.parametrize("tower", ["video", "text"])
@pytest.mark.parametrize("site", REPLACING + PARALLEL)
def test_each_site_is_where_it_says(site, tower):
    backbone, frames = tiny_backbone(), tiny_frames(2, 3)
    tokens = backbone.tokenize(TEXTS)
    hook = Shift(64 if tower == "video" else 48, add=site in REPLACING)
    plain = tiny_clip().eval()
    visual, mask = plain.visual, plain.attn_mask[: tokens.shape[1], : tokens.shape[1]]
    with torch.no_grad():
        if tower == "video":
            x, blocks, mask = visual._embeds(frames.flatten(0, 1)), visual.transformer.resblocks, None
        else:
            x = plain.token_embedding(tokens) + plain.positional_embedding[: tokens.shape[1]]
            blocks = plain.transformer.resblocks
        for index, block in enumerate(blocks):
            x = by_hand(site, block, x, mask, lambda z: hook(z, None)) if index == 1 else block(x, attn_mask=mask)
        expected = x[:, 0] if tower == "video" else x[torch.arange(3), tokens.argmax(-1)]
        expected = visual.ln_post(expected) @ visual.proj if tower == "video" else plain.ln_final(expected)
        expected = expected if tower == "video" else expected @ plain.text_projection
        backbone.add(tower, 2, site, hook)
        if tower == "video":
            found = backbone.encode_video(frames).frame.flatten(0, 1)
        else:
            found = backbone.encode_text(tokens)
            assert torch.equal(backbone.encode_text(tokens, hooked=False), tiny_backbone().encode_text(tokens))
    assert torch.allclose(found, expected, atol=1e-5)
    context, shape = hook.seen[-1]
    assert (context.tower, context.layer, context.batch) == (tower, 2, 2 if tower == "video" else 3)
    assert shape == ((6, 7, 64) if tower == "video" else (3, tokens.shape[1], 48))
    assert (context.frames, context.grid) == ((3, (2, 3)) if tower == "video" else (1, (0, 0)))


@pytest.mark.parametrize("tower", ["video", "text"])
def test_hooks_that_change_nothing_leave_every_bit(tower):
    backbone, frames = tiny_backbone(), tiny_frames()
    tokens = backbone.tokenize(TEXTS)
    for layer in (1, 2, 3):
        for site in REPLACING:
            backbone.add(tower, layer, site, lambda x, _: x)
        for site in PARALLEL:
            backbone.add(tower, layer, site, lambda x, _: torch.zeros_like(x))
    backbone.add(tower, 0, "embed", lambda x, _: x)
    bare = tiny_backbone()
    with torch.no_grad():
        assert torch.equal(backbone.encode_video(frames).frame, bare.encode_video(frames).frame)
        assert torch.equal(backbone.encode_text(tokens), bare.encode_text(tokens))


def test_embed_is_before_ln_pre_and_before_text_positions():
    backbone, plain, frames = tiny_backbone(), tiny_clip().eval(), tiny_frames(1, 2)
    tokens = backbone.tokenize(TEXTS)
    seen = {}
    for tower in ("video", "text"):
        backbone.add(tower, 0, "embed", lambda x, c: seen.setdefault(c.tower, x))
    with torch.no_grad():
        backbone.encode_video(frames), backbone.encode_text(tokens)
        assert torch.equal(plain.visual.ln_pre(seen["video"]), plain.visual._embeds(frames[0]))
        assert torch.equal(seen["text"], plain.token_embedding(tokens))


def test_tokens_can_be_appended_and_dropped():
    backbone, frames = tiny_backbone(), tiny_frames(1, 2)
    prompts = torch.randn(5, 64)
    backbone.add("video", 2, "tokens", lambda x, _: torch.cat([x, prompts.expand(len(x), -1, -1)], 1))
    with torch.no_grad():
        assert backbone.encode_video(frames).tokens.extra.shape == (1, 2, 5, 64)
        backbone.add("video", 3, "tokens", lambda x, _: x[:, :7])
        dropped = backbone.encode_video(frames)
        assert dropped.tokens.extra.shape == (1, 2, 0, 64)
        assert not torch.allclose(dropped.clip, tiny_backbone().encode_video(frames).clip)


def test_no_graph_below_the_first_layer_that_learns():
    backbone = tiny_backbone()
    graphs = []
    for block in backbone.model.visual.transformer.resblocks:
        block.mlp.register_forward_hook(lambda _m, _i, out: graphs.append(out.grad_fn is not None))
    backbone.add("video", 2, "parallel_mlp", Shift(64, add=False))
    assert backbone.encode_video(tiny_frames()).clip.requires_grad
    assert graphs == [False, False, True]  # block 2's own mlp is still below the sum with its adapter
    assert (backbone.frozen_layers("video"), backbone.frozen_layers("text")) == (1, 3)
    assert backbone.text_is_frozen()


@pytest.mark.parametrize("tower", ["video", "text"])
def test_a_block_with_a_graph_gives_open_clip_s_values_and_gradients(tower):
    plain, backbone = tiny_clip().eval(), tiny_backbone()
    width, mask = (64, None) if tower == "video" else (48, plain.attn_mask[:9, :9])
    stack = plain.visual.transformer if tower == "video" else plain.transformer
    x = torch.randn(5, 9, width)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = stack.resblocks[1](one, attn_mask=mask)
    found = run_block(backbone.block(tower, 2), other, Call(mask=mask), {}, ClipContext(5, 1, (0, 0), 2, tower))
    assert torch.allclose(found, expected, atol=1e-5)
    weight = torch.randn_like(x)
    (expected * weight).sum().backward(), (found * weight).sum().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_what_trains_counts_as_not_frozen():
    backbone = tiny_backbone()
    backbone.model.transformer.resblocks[1].mlp.c_fc.weight.requires_grad_(True)
    assert (backbone.frozen_layers("video"), backbone.frozen_layers("text")) == (3, 1)
    assert not backbone.text_is_frozen()
    backbone = tiny_backbone()
    backbone.model.text_projection.requires_grad_(True)
    assert backbone.frozen_layers("text") == 3
    assert not backbone.text_is_frozen()
    backbone.model.visual.positional_embedding.requires_grad_(True)
    assert backbone.frozen_layers("video") == 0


def test_the_base_stays_frozen_in_eval_mode_under_its_own_keys():
    backbone = tiny_backbone()
    backbone.add("video", 1, "parallel_mlp", Shift(64, add=False))
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbone.model.state_dict().keys() == tiny_clip().state_dict().keys()


def test_digest_is_of_the_base_tensors_alone():
    one, other = tiny_backbone(), tiny_backbone()
    other.add("video", 1, "parallel_mlp", Shift(64, add=False))
    assert one.digest == other.digest
    changed = tiny_backbone()
    with torch.no_grad():
        weight = changed.model.visual.proj
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert changed.digest != one.digest
    assert tiny_backbone(seed=1).digest != one.digest


def test_mistakes_are_named():
    backbone = tiny_backbone()
    with pytest.raises(UserError, match=r"did you mean 'pre_mlp'"):
        backbone.add("video", 1, "premlp", Shift(64, add=True))
    for layer, site in [(4, "pre_mlp"), (0, "pre_mlp"), (1, "embed"), (-1, "tokens")]:
        with pytest.raises(UserError, match="layers 1 to 3"):
            backbone.add("text", layer, site, Shift(48, add=True))
    with pytest.raises(UserError, match=r"\(clips, frames, 3, 16, 24\).*\(2, 3, 16, 24\)"):
        backbone.encode_video(torch.zeros(2, 3, 16, 24))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m, "visual", nn.Linear(1, 1)), "image tower is Linear"),
        (lambda m: setattr(m.visual, "pool_type", "none"), "pools neither by the class token nor by the mean"),
        (lambda m: setattr(m, "text_pool_type", "first"), "pools neither at the end token nor at the last one"),
        (lambda m: setattr(m, "cls_emb", nn.Parameter(torch.zeros(1))), "has a class token or masks its padding"),
        (lambda m: m.transformer.resblocks.append(nn.Linear(1, 1)), "not open_clip's standard attention blocks"),
    ],
)
def test_towers_of_another_kind_are_refused(change, said):
    model = tiny_clip()
    change(model)
    with pytest.raises(UserError, match=said):
        Backbone(model, lambda texts: torch.zeros(len(texts), 1), name="odd")
