"""MSTA, choice by choice: each test pins one decision of the paper's equations or of our reading of them."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.checkpoint import load_adapter, save_adapter
from vlmodels.clip import create
from vlmodels.clip_context import ClipContext
from vlmodels.errors import UserError
from vlmodels.methods.msta import MSTA, ParallelAdapter, VisualAdapter, hidden_layer

Config = MSTA.Config


def count(config, name="ViT-B-16-quickgelu"):
    with torch.device("meta"):
        return sum(p.numel() for p in MSTA(create(name, weights=None), config).trainable_parameters())


@pytest.mark.parametrize(
    ("config", "published"),
    [
        ({"dims": 128, "layers": "8-12"}, 1_744_000),  # the authors' logs: 1.744 M
        ({"dims": 128}, 4_185_600),
        ({"dims": 256, "layers": "8-12"}, 3_630_080),
        ({"dims": 256}, 8_712_192),  # table 5: 8.7 M
        ({"dims": 64}, 2_069_760),
        ({"dims": 512}, 18_972_672),
        ({"dims": 128, "layers": "1-6"}, 6 * 348_800),
        ({"dims": 128, "layers": "10-12"}, 3 * 348_800),
        ({"dims": 128, "layers": "8-12", "shared": False}, 1_661_440),
    ],
)
def test_parameter_counts(config, published):
    assert count(Config(**config)) == published


def test_each_branch_alone_keeps_the_shared_layer():
    both, video, text = (count(Config(dims=128, branches=b)) for b in ("both", "video", "text"))
    assert video + text == both + 12 * (128 * 128 + 128)


def test_a_tower_that_is_deeper_gets_adapters_where_both_have_blocks():
    method = tiny_method(MSTA, Config(dims=16), video_layers=4, text_layers=2)
    assert list(method.visual_adapter) == list(method.text_adapter) == ["1", "2"]
    with pytest.raises(UserError, match=r"layers=2-3 .*4 video, 2 text.*1-2 or all"):
        tiny_method(MSTA, Config(layers="2-3"), video_layers=4, text_layers=2)
    assert list(tiny_method(MSTA, Config(layers="4", branches="video"), video_layers=4).visual_adapter) == ["4"]


def sizes(width, dims):
    """Of a text adapter, of what a visual one has in addition, and of a shared layer."""
    return 2 * width * dims + dims + width, 3 * width * dims // math.gcd(dims, width) + width, dims * dims + dims


@pytest.mark.parametrize(
    ("layers", "text_layers", "video", "text", "either"),
    [("8-12", "1-6", 5, 6, 11), ("7-12", "8-10", 6, 3, 6), ("all", "12", 12, 1, 12), ("1-3", "2-5", 3, 4, 5)],
)
def test_ranges_of_each_tower_share_a_layer_where_either_has_adapters(layers, text_layers, video, text, either):
    (of_video, temporal, shared), (of_text, _, _) = sizes(768, 128), sizes(512, 128)
    expected = video * (of_video + temporal) + text * of_text + either * shared
    assert count(Config(dims=128, layers=layers, text_layers=text_layers)) == expected
    without = count(Config(dims=128, layers=layers, text_layers=text_layers, shared=False))
    assert without == expected - either * shared


def test_both_towers_go_through_the_one_layer_where_their_ranges_meet():
    method = tiny_method(MSTA, Config(dims=16, layers="1-2", text_layers="2-3"))
    assert [list(part) for part in (method.visual_adapter, method.text_adapter, method.shared_adapter)] == [
        ["1", "2"],
        ["2", "3"],
        ["1", "2", "3"],
    ]
    tokens = method.backbone.tokenize(list(CLASSES))
    losses = method.backbone.encode_video(tiny_frames()).clip.sum(), method.backbone.encode_text(tokens).sum()
    reached = [
        [
            torch.autograd.grad(loss, method.shared_adapter[layer][0].weight, retain_graph=True, allow_unused=True)[0]
            is not None
            for layer in ("1", "2", "3")
        ]
        for loss in losses
    ]
    assert reached == [[True, True, False], [False, True, True]]


def test_a_tower_with_its_own_range_may_use_its_own_depth():
    config = Config(dims=16, layers="3-4", text_layers="all")
    method = tiny_method(MSTA, config, video_layers=4, text_layers=2)
    assert (list(method.visual_adapter), list(method.text_adapter)) == (["3", "4"], ["1", "2"])
    with pytest.raises(UserError, match=r"(?s)layers=2-9 .*video tower.*4 layers.*text_layers=1-3 .*text.*2 layers"):
        tiny_method(MSTA, Config(layers="2-9", text_layers="1-3"), video_layers=4, text_layers=2)
    with pytest.raises(UserError, match=r"text_layers='3-2' is not a range.*text_layers=3-2 needs branches=both"):
        Config(text_layers="3-2", branches="video")


def test_the_same_range_twice_is_one_range():
    once, twice = (disturb(tiny_method(MSTA, Config(dims=16, layers="2", text_layers=own)).eval()) for own in ("", "2"))
    assert torch.equal(once(tiny_frames()).logits, twice(tiny_frames()).logits)


def test_ranges_of_each_tower_are_saved(tmp_path):
    method = disturb(tiny_method(MSTA, Config(dims=16, layers="1-2", text_layers="3"))).eval()
    save_adapter(tmp_path, method, classes=CLASSES)
    loaded = load_adapter(tmp_path, tiny_backbone()).method
    assert loaded.config == method.config
    assert torch.equal(loaded(tiny_frames()).logits, method(tiny_frames()).logits)


def test_names_follow_the_authors():
    method = tiny_method(MSTA, Config(dims=16, layers="2"))
    assert set(method.adapter_state_dict()) == {
        f"{adapter}.2.{name}.{kind}"
        for adapter, names in {
            "visual_adapter": ("down.0", "up", "temporal_up"),
            "text_adapter": ("down.0", "up"),
            "shared_adapter": ("0",),
        }.items()
        for name in names
        for kind in ("weight", "bias")
    }


@torch.no_grad()
def test_presets_are_the_published_settings():
    def setting(name):
        config, recipe = MSTA.presets[name].method, MSTA.presets[name].recipe
        return (
            (config.dims, config.layers, config.scale, config.alpha, config.dropout, config.descriptions),
            (recipe.batch_size, recipe.lr, recipe.epochs, recipe.warmup_epochs, recipe.weight_decay, recipe.frames),
        )

    assert setting("b2n") == ((256, "all", 0.005, 1.0, 0.1, 2), (32, 1e-3, 11, 5, 1e-3, 8))
    assert setting("fewshot") == ((128, "8-12", 0.005, 1.0, 0.1, 2), (32, 1e-3, 50, 5, 1e-3, 8))
    assert setting("fewshot_logged") == ((128, "8-12", 0.005, 1.0, 0.1, 8), (32, 1e-3, 50, 5, 1e-3, 8))
    assert setting("zeroshot") == ((128, "all", 0.001, 1.0, 0.1, 2), (256, 8e-3, 100, 5, 1e-3, 8))
    assert setting("full") == ((256, "all", 0.001, 1.0, 0.1, 2), (256, 8e-3, 100, 5, 1e-3, 8))
    assert setting("full_table1") == ((128, "all", 0.001, 1.0, 0.1, 2), (256, 8e-3, 100, 5, 1e-3, 8))
    assert {p.method.template for p in MSTA.presets.values()} == {"a video of {}."}


# ------------------------------------------------------------------------------------- the adapter by itself


def visual_adapter(dims=16, width=64, dropout=0.0):
    torch.manual_seed(0)
    return VisualAdapter(width, dims, dropout), hidden_layer(dims, dims)


def context(frames, *, batch=1, grid=(2, 3), joint=False):
    return ClipContext(batch, frames, grid, 1, "video", joint)


@torch.no_grad()
def test_visual_adapter_is_the_equation():
    """Eq. 11-13 spelt out per output channel, patch and frame, on a grid that is not square."""
    (adapter, shared), (b, t, p, d, m) = visual_adapter(), (2, 4, 6, 64, 16)
    torch.nn.init.normal_(adapter.temporal_up.bias)
    x = torch.randn(b * t, 1 + p, d)
    found = adapter(x, shared, context(t, batch=b))
    h = torch.relu(
        torch.relu(x @ adapter.down[0].weight.T + adapter.down[0].bias) @ shared[0].weight.T + shared[0].bias
    )
    expected = h @ adapter.up.weight.T + adapter.up.bias
    h = h.view(b, t, 1 + p, m)
    taps = adapter.temporal_up.weight.view(d, 3)
    for frame in range(t):
        for channel in range(d):
            source = channel // (d // m)
            moved = adapter.temporal_up.bias[channel].expand(b, p).clone()
            for tap, there in enumerate((frame - 1, frame, frame + 1)):
                if 0 <= there < t:
                    moved += taps[channel, tap] * h[:, there, 1:, source]
            expected.view(b, t, 1 + p, d)[:, frame, 1:, channel] += moved
    assert torch.allclose(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_convolution_sees_one_patch_and_the_frames_next_to_it(joint):
    (adapter, shared), (t, rows, columns) = visual_adapter(), (5, 2, 3)
    torch.nn.init.zeros_(adapter.up.weight)
    p = rows * columns

    def tokens(values):  # (T, P, D) in the order of the backbone: patch-major and time-minor if joint
        first = torch.zeros(1, 1, 64) if joint else torch.zeros(t, 1, 64)
        patches = values.transpose(0, 1).reshape(1, p * t, 64) if joint else values
        return torch.cat([first, patches], 1)

    def run(values):
        out = adapter(tokens(values), shared, context(t, joint=joint))[:, 1:]
        return out.view(p, t, 64).transpose(0, 1) if joint else out

    values = torch.randn(t, p, 64)
    changed = values.clone()
    changed[2, 4] += torch.randn(64)
    differs = (run(values) != run(changed)).any(-1)
    assert {tuple(place) for place in differs.nonzero().tolist()} == {(1, 4), (2, 4), (3, 4)}


@torch.no_grad()
@pytest.mark.parametrize(("dims", "groups"), [(16, 16), (32, 32), (48, 16), (128, 64)])
def test_groups_are_the_greatest_common_divisor(dims, groups):
    adapter, _ = visual_adapter(dims)
    conv = adapter.temporal_up
    assert conv.groups == math.gcd(dims, 64) == groups
    h = torch.randn(1, dims, 3, 2, 3)
    other = h.clone()
    other[:, 5] += 1
    moved = (conv(h) != conv(other)).flatten(2).any(-1)[0].nonzero().flatten().tolist()
    group = 5 // (dims // groups)
    assert moved == list(range(group * 64 // groups, (group + 1) * 64 // groups))


@torch.no_grad()
def test_class_tokens_have_no_temporal_part():
    adapter, shared = visual_adapter()
    torch.nn.init.zeros_(adapter.up.weight), torch.nn.init.zeros_(adapter.up.bias)
    out = adapter(torch.randn(4, 7, 64), shared, context(4))
    assert not out[:, 0].any()
    assert out[:, 1:].any()


def test_one_dropout_mask_serves_both_up_projections():
    adapter, shared = visual_adapter(dropout=0.5)
    masks = []
    adapter.up.register_forward_hook(lambda _m, args, _o: masks.append(args[0][:, 1:] == 0))
    adapter.temporal_up.register_forward_hook(
        lambda _m, args, _o: masks.append(args[0].permute(0, 2, 3, 4, 1).reshape(4, 6, 16) == 0)
    )
    x = torch.randn(4, 7, 64)
    first = adapter(x, shared, context(4))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(first, adapter(x, shared, context(4)))
    adapter.eval()
    assert torch.equal(adapter(x, shared, context(4)), adapter(x, shared, context(4)))


def test_initialisation_is_kaiming_by_fan_out():
    torch.manual_seed(0)
    method = MSTA(create("ViT-B-16-quickgelu", weights=None), Config(dims=256, layers="12"))
    adapter = method.visual_adapter["12"]
    assert adapter.temporal_up.weight.std().item() == pytest.approx(math.sqrt(2 / 2304), rel=0.05)
    assert adapter.up.weight.std().item() == pytest.approx(math.sqrt(2 / 768), rel=0.05)
    assert adapter.down[0].weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    for name, value in method.adapter_state_dict().items():
        assert bool(value.any()) == name.endswith("weight"), name


# ---------------------------------------------------------------------------------- the adapter in its place


@torch.no_grad()
@pytest.mark.parametrize("branches", ["both", "video", "text"])
@pytest.mark.parametrize("joint", [False, True])
def test_lambda_zero_is_the_frozen_backbone_bit_for_bit(branches, joint):
    method, bare = tiny_method(MSTA, Config(scale=0.0, branches=branches), joint=joint), tiny_backbone(joint=joint)
    assert method.trainable_parameters() == []
    assert torch.equal(method.backbone.encode_video(tiny_frames()).clip, bare.encode_video(tiny_frames()).clip)
    tokens = bare.tokenize(list(CLASSES))
    assert torch.equal(method.backbone.encode_text(tokens), bare.encode_text(tokens))


@torch.no_grad()
def test_training_masks_no_tokens_and_drops_no_paths():
    """A13: ViCLIP's own training hides 90 % of the patches and drops blocks; neither happens here."""
    method = tiny_method(MSTA, Config(dims=16, dropout=0.0), joint=True).train()
    seen = []
    method.backbone.add("video", 1, "tokens", lambda x, _: seen.append(x.shape[1]) or x)
    first, second = method(tiny_frames(2, 4)), method(tiny_frames(2, 4))
    assert seen == [1 + 6 * 4] * 2
    assert torch.equal(first.logits, second.logits)


@torch.no_grad()
def test_zero_init_up_starts_as_the_backbone():
    method, bare = tiny_method(MSTA, Config(zero_init_up=True)), tiny_backbone()
    assert torch.equal(method.backbone.encode_video(tiny_frames()).clip, bare.encode_video(tiny_frames()).clip)


@torch.no_grad()
def test_adapters_are_parallel_to_the_whole_block():
    """With attention and MLP silenced, ``out = x + lambda * A(ln_1(x))``."""
    method = disturb(tiny_method(MSTA, Config(dims=16, layers="2", scale=0.5, dropout=0.0)))
    visual = method.backbone.model.visual
    seen = []
    for index, block in enumerate(visual.transformer.resblocks):
        for silenced in (block.attn.out_proj, block.mlp.c_proj):
            torch.nn.init.zeros_(silenced.weight), torch.nn.init.zeros_(silenced.bias)
        if index in (0, 2):
            block.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    method.backbone.encode_video(tiny_frames(1, 4))
    x, out = seen
    ln = visual.transformer.resblocks[1].ln_1
    added = 0.5 * method.visual_adapter["2"](ln(x), method.shared_adapter["2"], context(4))
    assert torch.allclose(out, x + added, atol=1e-5)


@torch.no_grad()
def test_input_ln_1_ignores_the_scale_of_the_stream_and_raw_does_not():
    def adapter_output(kind, factor):
        method = tiny_method(MSTA, Config(dims=16, layers="1", input=kind))
        seen = []
        method.visual_adapter["1"].up.register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
        visual = method.backbone.model.visual
        visual.ln_pre.register_forward_hook(lambda _m, _a, out: factor * out)
        method.backbone.encode_video(tiny_frames())
        return seen[0]

    assert torch.allclose(adapter_output("ln_1", 1), adapter_output("ln_1", 10), atol=1e-3)
    assert not torch.allclose(adapter_output("raw", 1), adapter_output("raw", 10), atol=1e-1)


def test_one_shared_layer_per_depth_learns_from_both_branches():
    method = tiny_method(MSTA, Config(dims=16))
    assert len({id(shared) for shared in method.shared_adapter.values()}) == 3
    shared = method.shared_adapter["1"][0].weight
    tokens = method.backbone.tokenize(list(CLASSES))
    for loss in (method.backbone.encode_video(tiny_frames()).clip.sum(), method.backbone.encode_text(tokens).sum()):
        (gradient,) = torch.autograd.grad(loss, shared)
        assert gradient.any()


def test_gradient_scaling_undoes_lambda_for_adapters_and_for_nothing_else():
    def gradients(scaling):
        method = tiny_method(MSTA, Config(dims=16, scale=0.005, dropout=0.0, gradient_scaling=scaling))
        start = torch.zeros(64, requires_grad=True)
        method.backbone.add("video", 0, "embed", lambda x, _: x + start)
        out = method(tiny_frames())
        torch.nn.functional.cross_entropy(out.logits, torch.tensor([0, 1])).backward()
        return out.logits, start.grad, [p.grad for p in method.trainable_parameters()]

    (on, upstream_on, scaled), (off, upstream_off, true) = gradients(True), gradients(False)
    assert torch.equal(on, off)
    assert torch.allclose(upstream_on, upstream_off, atol=1e-6 * upstream_off.abs().max().item() + 1e-9)
    for a, b in zip(scaled, true, strict=True):
        assert torch.allclose(a, 200 * b, rtol=1e-2, atol=1e-4 * a.abs().max().item())


def test_scaling_functions_pass_gradcheck_against_their_definition():
    x = torch.randn(2, 7, 64)
    adapter, shared = visual_adapter()
    damped, plain = (ParallelAdapter(adapter, shared, Config(scale=0.3, gradient_scaling=on)) for on in (True, False))
    for hook, factor in ((plain, 1.0), (damped, 1 / 0.3)):
        z = x.clone().requires_grad_()
        hook(z, context(2)).square().sum().backward()
        weight, adapter.up.weight.grad = adapter.up.weight.grad.clone(), None
        if factor == 1.0:
            of_input, of_weight = z.grad, weight
        assert torch.allclose(z.grad, of_input, rtol=1e-4, atol=1e-6)
        assert torch.allclose(weight, factor * of_weight, rtol=1e-4, atol=1e-5)


def test_blocks_below_the_range_keep_no_graph_and_run_once_for_text():
    method = tiny_method(MSTA, Config(dims=16, layers="3", dropout=0.0)).train()
    model, runs, graphs = method.backbone.model, [], []
    for index, (video, text) in enumerate(
        zip(model.visual.transformer.resblocks, model.transformer.resblocks, strict=True), 1
    ):
        video.register_forward_hook(lambda _m, _a, out: graphs.append(out.grad_fn))
        text.mlp.register_forward_hook(lambda _m, _a, _o, i=index: runs.append(i))
    for _ in range(3):
        method(tiny_frames())
    assert graphs == [None] * 6
    assert runs == [1, 2, 3, 3, 3]


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Config(dims=0, scale=-1.0, layers="12-8", dropout=1.0, template="a video", descriptions=0, alpha=-1.0)
    for said in ("dims=0", "scale=-1.0", "layers='12-8'", "dropout=1.0", "template", "descriptions=0", "alpha=-1.0"):
        assert said in str(caught.value)
    with pytest.raises(UserError) as caught:
        Config(dims="256", consistency="spacial", scale=float("nan"), shared=1)
    for said in (
        "dims='256' is not of type int",
        "did you mean 'spatial'",
        "scale=nan",
        "shared=1 is not of type bool",
    ):
        assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "0-3", "3-2", "a-b", "1-", "-3", "1-2-3"])
def test_ranges_that_cannot_be_read(text):
    with pytest.raises(UserError, match=f"layers='{text}' is not a range"):
        Config(layers=text)


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(MSTA, Config(dims=16, scale=0.5)), 60, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]
