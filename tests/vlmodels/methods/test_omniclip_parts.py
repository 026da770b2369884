"""OmniCLIP's parts by themselves: each test pins one decision of the paper's equations or of our reading of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.helpers.tiny_clip import disturb, tiny_frames, tiny_method
from vlmodels.clip_context import ClipContext
from vlmodels.methods.omniclip import OmniCLIP
from vlmodels.self_prompts import SelfPrompts
from vlmodels.temporal_adapter import TemporalAdapter, TemporalEncoding
from vlmodels.video_prompts import VideoPrompts

both_families = pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])


def context(frames, *, batch=1, grid=(2, 3), joint=False):
    return ClipContext(batch, frames, grid, 1, "video", joint)


def reference_attention(part, x, source=None):
    """The same attention by torch's own function, on (B,L,D)."""
    source = x if source is None else source
    biases = [p.bias if p.bias is not None else torch.zeros(x.shape[-1]) for p in (part.query, part.key, part.value)]
    out, _ = functional.multi_head_attention_forward(
        x.transpose(0, 1),
        source.transpose(0, 1),
        source.transpose(0, 1),
        embed_dim_to_check=x.shape[-1],
        num_heads=part.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat(biases),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=part.out.weight,
        out_proj_bias=part.out.bias,
        use_separate_proj_weight=True,
        q_proj_weight=part.query.weight,
        k_proj_weight=part.key.weight,
        v_proj_weight=part.value.weight,
    )
    return out.transpose(0, 1)


# ------------------------------------------------------------------------------------------------- the temporal adapter


def adapter(hidden=16, heads=2, **options):
    torch.manual_seed(0)
    part = TemporalAdapter(64, hidden, heads, **options)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return part


@torch.no_grad()
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("hidden", "heads"), [(8, 2), (16, 2), (64, 4)])
def test_adapter_is_equation_7_at_each_token_place(inner, hidden, heads):
    part, (b, t, n) = adapter(hidden, heads, inner_residual=inner), (2, 4, 9)  # class token, 6 patches, 2 prompts
    x = torch.randn(b * t, n, 64)
    h = part.down(x).view(b, t, n, hidden)
    out = torch.empty(b, t, n, 64)
    for place in range(n):
        mixed = reference_attention(part.attention, part.norm(h[:, :, place]))
        out[:, :, place] = part.alpha * part.up(mixed + h[:, :, place] if inner else mixed)
    assert torch.allclose(part(x, context(t, batch=b)), out.flatten(0, 1), atol=1e-5)


@torch.no_grad()
def test_adapter_on_a_joint_sequence_is_the_same_on_patches_and_prompts():
    part, (b, t, n) = adapter(), (2, 4, 8)
    places = torch.randn(b, t, n, 64)
    per_frame = part(torch.cat([torch.zeros(b, t, 1, 64), places], 2).flatten(0, 1), context(t, batch=b))
    cls = torch.randn(b, 1, 64)
    joint = part(torch.cat([cls, places.transpose(1, 2).flatten(1, 2)], 1), context(t, batch=b, joint=True))
    found = joint[:, 1:].view(b, n, t, 64).transpose(1, 2)
    assert torch.allclose(found, per_frame.view(b, t, 1 + n, 64)[:, :, 1:], atol=1e-5)
    value = part.attention.out(part.attention.value(part.norm(part.down(cls))))  # a single step looks at itself
    assert torch.allclose(joint[:, :1], part.alpha * part.up(value), atol=1e-5)


@torch.no_grad()
@both_families
def test_an_impulse_reaches_its_place_in_all_frames_and_no_other(joint):
    (t, n), part = (4, 6), adapter()
    x = torch.randn(1, 1 + t * n, 64) if joint else torch.randn(t, 1 + n, 64)
    changed = x.clone()
    index = (0, 1 + 3 * t + 2) if joint else (2, 1 + 3)  # place 3, frame 2
    changed[index] += torch.randn(64)
    differs = (part(x, context(t, joint=joint)) != part(changed, context(t, joint=joint))).any(-1)
    expected = [[0, 1 + 3 * t + i] for i in range(t)] if joint else [[i, 4] for i in range(t)]
    assert differs.nonzero().tolist() == expected


# --------------------------------------------------------------------------------------------------------- self-prompts


def generator(*, mlp=True, pool="avg"):
    torch.manual_seed(0)
    return SelfPrompts(64, 32 if mlp else None, pool)


@torch.no_grad()
def test_pooling_gives_one_prompt_for_2_x_2_patches_row_by_row():
    expected = torch.randn(2, 3, 49, 64)
    patches = expected.view(2, 3, 7, 7, 64).repeat_interleave(2, 2).repeat_interleave(2, 3)  # constant per 2 x 2
    assert torch.allclose(generator(mlp=False).prompts(patches), expected, atol=1e-6)
    assert torch.equal(generator(mlp=False, pool="max").prompts(patches), expected)
    projected = generator().projector(expected)
    assert torch.allclose(generator().prompts(patches), projected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (7, 7), (1, 4)])
def test_every_patch_of_an_odd_grid_counts(pool, rows, columns):
    patches = torch.randn(1, 2, rows, columns, 64)
    found = generator(mlp=False, pool=pool).prompts(patches)
    cells = [(r, c) for r in range(0, rows, 2) for c in range(0, columns, 2)]
    assert found.shape[2] == len(cells)
    for prompt, (r, c) in enumerate(cells):
        cell = patches[:, :, r : r + 2, c : c + 2].flatten(2, 3)
        assert torch.allclose(found[:, :, prompt], cell.mean(2) if pool == "avg" else cell.amax(2), atol=1e-6)


@torch.no_grad()
@both_families
def test_prompts_are_made_of_patches_alone_and_take_the_place_of_the_former(joint):
    part, (b, t) = generator(), (2, 4)
    patches = torch.randn(b, t, 2, 3, 64)
    if joint:
        x = torch.cat([torch.randn(b, 1, 64), patches.permute(0, 2, 3, 1, 4).flatten(1, 3)], 1)
        former = torch.randn(b, 5 * t, 64)
        expected = torch.cat([x, part.prompts(patches).transpose(1, 2).flatten(1, 2)], 1)
    else:
        x = torch.cat([torch.randn(b * t, 1, 64), patches.flatten(2, 3).flatten(0, 1)], 1)
        former = torch.randn(b * t, 5, 64)
        expected = torch.cat([x, part.prompts(patches).flatten(0, 1)], 1)
    of = context(t, batch=b, joint=joint)
    assert torch.equal(part(x, of), expected)
    assert torch.equal(part(torch.cat([x, former], 1), of), expected)
    other = x.clone()
    other[:, 0] += 1  # the class token
    assert torch.equal(part(other, of)[:, x.shape[1] :], expected[:, x.shape[1] :])


# ----------------------------------------------------------------------------- temporal encoding, attention over frames


@torch.no_grad()
@both_families
def test_the_encoding_is_added_to_all_tokens_of_a_frame(joint):
    part, (b, t) = TemporalEncoding(4, 64), (2, 4)
    x = torch.randn(b, 1 + 6 * t, 64) if joint else torch.randn(b * t, 7, 64)
    assert part.table.shape == (4, 64)
    assert torch.equal(part(x, context(t, batch=b, joint=joint)), x)  # zero at the start
    torch.nn.init.normal_(part.table)
    added = part(x, context(t, batch=b, joint=joint)) - x
    if joint:  # its class token belongs to no frame
        assert not added[:, 0].any()
        assert torch.allclose(added[:, 1:].view(b, 6, t, 64), part.table.expand(b, 6, t, 64), atol=1e-6)
    else:
        assert torch.allclose(added.view(b, t, 7, 64), part.table[:, None].expand(b, t, 7, 64), atol=1e-6)


@torch.no_grad()
def test_other_numbers_of_frames_are_interpolated():
    part = TemporalEncoding(4, 64)
    part.table[:] = torch.arange(4.0)[:, None]
    rows = part(torch.zeros(8, 7, 64), context(8))[:, 3, 5]
    assert rows.tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


@torch.no_grad()
@both_families
def test_the_video_is_the_mean_of_attended_frames(joint):
    """With the residual and as equation 5 prints it."""
    for residual in (True, False):
        method = disturb(tiny_method(OmniCLIP, OmniCLIP.Config(mha_residual=residual), joint=joint).eval(), scale=0.5)
        part, f = method.frame_attention, method.backbone.encode_video(tiny_frames()).frame
        if residual:
            expected = (f + reference_attention(part.attention, part.norm(f))).mean(1)
        else:
            expected = reference_attention(part.attention, f).mean(1)
        assert part.attention.heads == 8
        assert torch.allclose(method.encode_video(tiny_frames()), functional.normalize(expected, dim=-1), atol=1e-5)


# ----------------------------------------------------------------------------------------------- video-specific prompts


@torch.no_grad()
def test_video_prompts_are_x_clips():
    torch.manual_seed(0)
    part = VideoPrompts(64, 40, 8)
    for parameter in part.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    text, patches = torch.randn(3, 40), torch.randn(2, 4, 2, 3, 64)
    visual = part.norm((part.visual_norm(patches.flatten(2, 3)) @ part.visual_projection).mean(1))
    x = text.expand(2, 3, 40)
    for layer in part.layers:
        x = x + reference_attention(layer.attention, layer.attention_norm(x), visual)
        hidden = layer.widen(layer.mlp_norm(x))
        x = x + layer.narrow(hidden * torch.sigmoid(1.702 * hidden))
    assert len(part.layers) == 2
    assert torch.allclose(part(text, patches), text + part.weight * x, atol=1e-4)


def test_video_prompts_start_as_x_clips():
    torch.manual_seed(0)
    part = VideoPrompts(256, 64, 8)
    assert torch.equal(part.weight, torch.full((64,), 0.1))
    assert part.visual_projection.std().item() == pytest.approx(256**-0.5, rel=0.05)
    layer = part.layers[1]
    assert layer.widen.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.narrow.bias.any()
    assert layer.attention.query.bias is None
    assert layer.attention.out.bias is not None
