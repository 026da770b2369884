"""M2-CLIP, choice by choice: its sizes and cost, and its adapters; test_m2clip_heads.py has the heads."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.m2clip import M2CLIP, TextAdapter

Config = M2CLIP.Config
SMALL = {"dims": 16, "text_dims": 12}
LABELS = torch.tensor([0, 1])


def on_shapes(config, classes=400):
    with torch.device("meta"):
        return M2CLIP(create("ViT-B-16-quickgelu", weights=None), config, [f"class {i}" for i in range(classes)])


def small(joint=False, **config):
    return disturb(tiny_method(M2CLIP, Config(**SMALL | config), joint=joint))


def loss(method, labels=LABELS):
    return method.losses(method.train()(tiny_frames(), labels), labels)


# ---------------------------------------------------------------------------------------------- size and cost


@pytest.mark.parametrize(
    ("preset", "changes", "classes", "expected"),
    [
        ("full", {}, 400, 16_138_136),  # 16 M in table 1
        ("full", {"site": "pre_attn"}, 400, 16_138_136),
        ("full", {"frame_adapter": False}, 400, 16_138_136 - 263_936),
        ("full", {"vc_input": "embed"}, 400, 16_138_136 - 256 * 400),
        ("full", {"ted": "te"}, 400, 16_138_136 - 7_137_792),
        ("full", {"ted": "td"}, 400, 16_138_136 - 7_110_144),
        ("full", {"layers": "7-12"}, 400, 16_138_136 - 7_123_968),
        ("full", {"text_layers": 3}, 400, 16_138_136 + 2 * 394_112),
        ("full", {"cmlm": 0.0}, 400, 16_138_136 - 530_440 - 394_112),
        ("full", {"vc": 0.0, "score_mode": "text"}, 400, 16_138_136 - 307_600),
        ("paper", {}, 400, 16_138_136 - 263_936 - 256 * 400),  # 16 M, as printed
        ("release", {}, 400, 16_138_136 - 924_552),
        ("release", {"cmlm": 0.1, "vocabulary": 520}, 400, 16_138_136),  # as it counts itself
        ("ssv2_release", {"cmlm": 0.1, "vocabulary": 234}, 174, 39_524_248),
    ],
)
def test_parameter_counts(preset, changes, classes, expected):
    method = on_shapes(dataclasses.replace(M2CLIP.presets[preset].method, **changes), classes)
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


@torch.no_grad()
def test_cost_is_162_8_gmacs_at_8_frames():
    method = on_shapes(M2CLIP.presets["full"].method)
    with FlopCounterMode(display=False) as counter:
        method.encode_video(torch.empty(1, 8, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(162.8, rel=1e-3)


def test_only_what_the_paper_lists_trains():
    groups = {name.split(".")[0] for name, p in small().named_parameters() if p.requires_grad}
    assert groups == {"ted", "text_adapter", "frame_adapter", "classifier", "words"}
    assert [factor for _, factor in small().learning_rate_factors()] == [0.5, 0.5]
    halved = {p for part, _ in small().learning_rate_factors() for p in part.parameters()}
    assert len(halved) == 8


def test_presets_are_the_published_recipes():
    full, ssv2 = M2CLIP.presets["full"].recipe, M2CLIP.presets["ssv2_release"].recipe
    assert (full.lr, full.batch_size, full.epochs, full.warmup_epochs) == (pytest.approx(2.8125e-4), 72, 12, 2)
    assert (ssv2.lr, ssv2.batch_size, ssv2.epochs, ssv2.flip, ssv2.randaugment) == (5e-4, 128, 50, 0, True)
    for recipe in (full, ssv2):
        assert (recipe.weight_decay, recipe.no_decay, recipe.beta2, recipe.min_lr_ratio) == (0.01, "biases", 0.999, 0)
        assert recipe.schedule == "restarted"
    defaults = M2CLIP.presets["full"].method
    assert (defaults.contrastive, defaults.cmc, defaults.cmlm, defaults.vc) == (0.5, 0.5, 0.1, 1.0)


def test_paper_and_release_are_one_side_each():
    def differing(name, *others):
        a, *rest = (M2CLIP.presets[preset].method for preset in (name, *others))
        return {f for b in rest for f, value in vars(a).items() if value != getattr(b, f)}

    sides = {"site", "vc_input", "frame_adapter", "cmc_double_softmax", "cmlm"}
    assert differing("paper", "release") - {"vocabulary"} == sides
    assert differing("paper", "full") == {"site", "vc_input", "frame_adapter"}
    assert differing("release", "full") - {"vocabulary"} == {"cmc_double_softmax", "cmlm"}
    assert differing("ssv2_paper", "paper") == {"vocabulary"}
    assert differing("ssv2_release", "release") == {"site", "text_layers", "text_site"}
    paper, release = M2CLIP.presets["paper"], M2CLIP.presets["release"]
    assert paper.recipe == release.recipe == M2CLIP.presets["full"].recipe  # the paper prints none


# ---------------------------------------------------------------------------------------- adapters in their place


@torch.no_grad()
@pytest.mark.parametrize("site", ["pre_mlp", "pre_attn", "both"])
def test_adapters_stand_where_they_are_said_to(site):
    """Seen from outside: what an adapter reads, from the block's own parts."""
    method = small(site=site, text_site=site, layers="2", text_layers=2)
    places = {"pre_mlp", "pre_attn"} if site == "both" else {site}
    read = {}
    for tower, layer, adapters in (("video", 2, method.ted["2"]), ("text", 2, method.text_adapter["2"])):
        block = method.backbone.block(tower, layer).module
        assert set(adapters.keys()) == places
        for place, adapter in adapters.items():
            adapter.register_forward_hook(
                lambda _m, args, out, key=(tower, place): read.update({key: args[0], (*key, "out"): out})
            )
        block.ln_1.register_forward_hook(lambda _m, args, _o, key=(tower, "ln_1"): read.update({key: args[0]}))
        block.ln_2.register_forward_hook(lambda _m, args, _o, key=(tower, "ln_2"): read.update({key: args[0]}))
        block.attn.register_forward_hook(lambda _m, _a, out, key=(tower, "attn"): read.update({key: out[0]}))
    method.backbone.encode_video(tiny_frames())
    method.encode_classes()
    for tower in ("video", "text"):
        residual = read[tower, "ln_1"] + read[tower, "attn"]
        if "pre_attn" in places:
            assert torch.equal(read[tower, "pre_attn", "out"], read[tower, "ln_1"])
        if "pre_mlp" in places:
            assert torch.allclose(read[tower, "pre_mlp"], residual, atol=1e-6)
        assert torch.allclose(read[tower, "ln_2"], read.get((tower, "pre_mlp", "out"), residual), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_video_tower_starts_as_the_frozen_one(joint):
    method, bare = tiny_method(M2CLIP, Config(site="both"), joint=joint), tiny_backbone(joint=joint)
    expected = functional.normalize(bare.encode_video(tiny_frames()).frame.mean(dim=1), dim=-1)
    assert torch.equal(method.encode_video(tiny_frames()), expected)


@torch.no_grad()
def test_the_text_tower_starts_near_the_frozen_one_or_at_it():
    tokens = (bare := tiny_backbone()).tokenize(list(CLASSES))
    for zero in (True, False):
        method = tiny_method(M2CLIP, Config(text_adapter_zero_init=zero, text_layers=2))
        assert torch.equal(method.backbone.encode_text(tokens), bare.encode_text(tokens)) == zero
    assert set(method.text_adapter) == {"2", "3"}
    assert not tiny_method(M2CLIP, Config(text_layers=0)).text_adapter


@torch.no_grad()
def test_text_adapter_is_the_equation():
    adapter, z = disturb_module(TextAdapter(48, 12, zero_init=False)), torch.randn(2, 5, 48)
    hidden = z @ adapter.down.weight.T + adapter.down.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    assert torch.allclose(adapter(z), z + hidden @ adapter.up.weight.T + adapter.up.bias, atol=1e-6)


def disturb_module(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@torch.no_grad()
def test_frame_adapter_mixes_neighbours_before_the_mean():
    method, frames = small(), tiny_frames(1, 4)
    features = method.backbone.encode_video(frames).frame
    adapter = method.frame_adapter
    h = functional.pad(adapter.down(features), (0, 0, 1, 1))
    taps = adapter.conv.weight[:, 0, :, 0]
    mixed = sum(h[:, k : k + 4] * taps[:, k] for k in range(3)) + adapter.conv.bias
    expected = (features + adapter.up(mixed)).mean(dim=1)
    assert torch.allclose(method.encode_video(frames), functional.normalize(expected, dim=-1), atol=1e-5)
    assert small(frame_adapter=False).frame_adapter is None


@pytest.mark.parametrize(("joint", "site"), [(False, "pre_mlp"), (False, "pre_attn"), (True, "pre_mlp")])
def test_the_last_difference_reaches_an_output_only_through_attention_or_a_joint_tower(joint, site):
    method = small(joint=joint, site=site)
    sum(loss(method).values()).backward()
    last = method.ted["3"][site]
    assert last.te.up.weight.grad.any()
    assert bool(last.td.up.weight.grad.any()) == (joint or site == "pre_attn")
    assert method.ted["2"][site].td.up.weight.grad.any()


# --------------------------------------------------------------------------------------------------- bad input


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Config(layers="5-2", dims=0, text_dims=0, text_layers=-1, vocabulary=-1, contrastive=0.0, cmc=0.0, vc=0.0)
    for said in ("layers='5-2'", "dims=0", "text_dims=0", "text_layers=-1", "vocabulary=-1", "cmc=0", "vc=0"):
        assert said in str(caught.value)
    with pytest.raises(UserError, match=r"cmlm=-1.*must not be negative"):
        Config(cmlm=-1.0)
    with pytest.raises(UserError, match="mlm_shared_pass=false"):
        Config(cmlm=0.0, mlm_shared_pass=True)
    with pytest.raises(UserError, match=r"ted='paralel'.*did you mean 'parallel'"):
        Config(ted="paralel")


def test_what_does_not_fit_the_backbone_or_has_no_classes_is_refused():
    for config, said in ((Config(layers="3-4"), "layers=3-4 does not fit"), (Config(text_layers=4), "text_layers=4")):
        with pytest.raises(UserError, match=said):
            tiny_method(M2CLIP, config)
    with pytest.raises(UserError, match="at least 2 class names"):
        M2CLIP(tiny_backbone(), None, ["jump"])


def test_built_for_no_classes_it_has_no_heads_and_only_predicts():
    method = M2CLIP(tiny_backbone())
    assert method.classifier is method.words is None
    method.set_classes(CLASSES)
    out = method.eval()(tiny_frames())
    assert torch.equal(out.logits, out.extra["text_logits"])
    with pytest.raises(UserError, match="not on riding a bike, drinking_tea, jump"):
        method.train()(tiny_frames(), LABELS)


# ---------------------------------------------------------------------------------------------------- training


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(M2CLIP, Config(**SMALL)), 40, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]
