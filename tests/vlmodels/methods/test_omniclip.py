"""OmniCLIP, choice by choice: each test pins one decision of the paper's equations or of our reading of them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.clip import create
from vlmodels.clip_context import ClipContext
from vlmodels.errors import UserError
from vlmodels.methods.omniclip import OmniCLIP

Config = OmniCLIP.Config

both_families = pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])


def published(frames=8, **config):
    with torch.device("meta"):
        backbone = create("ViT-B-16-quickgelu", weights=None, num_frames=frames)
        return OmniCLIP(backbone, Config(**config), [str(i) for i in range(174)]).eval()


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def gmacs(call, *arguments):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*arguments)
    return counter.get_total_flops() / 2e9


def received(module):
    """The first argument of each call to a module, as they come."""
    inputs = []
    module.register_forward_pre_hook(lambda _module, arguments: inputs.append(arguments[0]))
    return inputs


# ----------------------------------------------------------------------------------------------------- counts and costs


def test_parts_count_what_was_derived():
    method = published()
    norms_and_alphas = 12 * (2 * 192 + 1)
    assert count(method.temporal_adapter) == 5_329_152 + norms_and_alphas
    assert [count(part) for part in method.self_prompts.values()] == 12 * [1_181_184]
    assert count(method.temporal_encoding) == 8 * 768
    assert count(method.frame_attention) == 1_050_624 + 2 * 512
    assert count(method.video_prompts) == 6_697_984
    assert count(method) == 27_263_756


@pytest.mark.parametrize(
    ("config", "total"),
    [
        ({"spg": "input"}, 14_270_732),
        ({"spg_share": True}, 14_270_732),
        ({"spg": "none"}, 13_089_548),
        ({"spg_mlp": False}, 13_089_548),
        ({"spg_hidden": 192}, 27_263_756 - 12 * (1_181_184 - 2 * 768 * 192 - 192 - 768)),
        ({"pta": "none"}, 27_263_756 - 5_329_152 - 12 * 385),
        ({"layers": "1-3"}, 27_263_756 - 9 * (444_096 + 385)),
        ({"ratio": 0.5}, 27_263_756 + 12 * (2 * 768 * 192 + 4 * (384**2 - 192**2) + 7 * 192)),
        ({"mha_residual": False}, 27_263_756 - 2 * 512),
        ({"head": "linear"}, 20_656_058),
        ({"head": "linear", "spg": "input"}, 7_663_034),
        ({"head": "text_fixed"}, 27_263_756 - 6_697_984),
    ],
    ids=str,
)
def test_totals(config, total):
    method = published(**config)
    assert count(method) == total == sum(p.numel() for p in method.trainable_parameters())


@pytest.mark.parametrize(
    ("config", "frames", "expected"),
    [
        ({}, 8, 193.1),
        ({}, 16, 386.3),
        ({"spg": "input"}, 8, 188.0),
        ({"spg": "none"}, 8, 148.9),
        ({"spg": "none", "pta": "none"}, 8, 140.5),
    ],
    ids=str,
)
def test_costs(config, frames, expected):
    method = published(frames, **config)
    clip = torch.empty(1, frames, 3, 224, 224, device="meta")
    assert gmacs(method.encode_video, clip) == pytest.approx(expected, rel=1e-3)


def test_prompts_for_400_classes_cost_at_most_3_more():
    text, patches = torch.empty(400, 512, device="meta"), torch.empty(1, 8, 14, 14, 768, device="meta")
    # the derived 3.1 projects every frame's patches; here their mean, for the same result
    assert gmacs(published().video_prompts, text, patches) == pytest.approx(3.1 - 7 * 196 * 768 * 512 / 1e9, rel=0.01)


def test_published_grid_makes_246_tokens():
    method, lengths = published(), []
    for layer in (1, 12):
        method.backbone.add("video", layer, "pre_mlp", lambda x, _: lengths.append(x.shape[1]) or x)
    method.encode_video(torch.empty(1, 8, 3, 224, 224, device="meta"))
    assert lengths == [246, 246]


# --------------------------------------------------------------------------------------------------------------- blocks


@torch.no_grad()
@both_families
@pytest.mark.parametrize("spg", ["none", "layer", "input"])
@pytest.mark.parametrize("place", ["parallel", "cascade", "attention"])
def test_what_a_block_gets_and_gives(place, spg, joint):
    """Eq. 2-4, and the two other combinations of table 11; new prompts before each block, or before the first."""
    method = disturb(tiny_method(OmniCLIP, Config(pta=place, spg=spg), joint=joint))
    bare, of = tiny_backbone(joint=joint), ClipContext(2, 3, (2, 3), 1, "video", joint)
    entered = [received(part) for part in method.temporal_adapter.values()]
    hidden = method.backbone.encode_video(tiny_frames()).hidden
    prompts = {"none": 0, "layer": 2, "input": 2}[spg]  # a grid of 2 x 3 gives 2
    places = 1 + (6 + prompts) * 3 if joint else 1 + 6 + prompts
    for layer, ((x,), part) in enumerate(zip(entered, method.temporal_adapter.values(), strict=True), 1):
        assert x.shape[1] == places
        block, added = bare.block("video", layer).module, part(x, of)
        if place == "parallel":
            out = block(x) + added
        elif place == "cascade":
            out = block(x + added)
        else:
            u = x + block.attention(block.ln_1(x)) + added
            out = u + block.mlp(block.ln_2(u))
        if layer < 3 and spg == "layer":
            out = method.self_prompts[str(layer + 1)](out, of)
        following = entered[layer][0] if layer < 3 else hidden
        assert torch.allclose(following, out, atol=1e-5)
    assert list(method.self_prompts) == {"none": [], "layer": ["1", "2", "3"], "input": ["1"]}[spg]


@torch.no_grad()
def test_the_encoding_comes_before_ln_pre_and_the_first_prompts_after_it():
    method, bare, frames = disturb(tiny_method(OmniCLIP)), tiny_backbone().model.visual, tiny_frames(2, 4)
    entered, embedded = received(method.temporal_adapter["1"]), received(bare.ln_pre)
    method.backbone.encode_video(frames)
    bare(frames.flatten(0, 1))
    tokens = bare.ln_pre(embedded[0] + method.temporal_encoding.table.repeat(2, 1)[:, None])
    of = ClipContext(2, 4, (2, 3), 1, "video")
    assert torch.allclose(entered[0], method.self_prompts["1"](tokens, of), atol=1e-5)


@torch.no_grad()
@both_families
@pytest.mark.parametrize("place", ["parallel", "cascade", "attention"])
def test_alpha_zero_is_the_block_alone(place, joint):
    method = tiny_method(OmniCLIP, Config(pta=place, spg="none"), joint=joint)
    for part in method.temporal_adapter.values():
        torch.nn.init.normal_(part.up.weight)
        torch.nn.init.zeros_(part.alpha)
    frozen = tiny_backbone(joint=joint).encode_video(tiny_frames())
    assert torch.equal(method.backbone.encode_video(tiny_frames()).hidden, frozen.hidden)


@torch.no_grad()
@both_families
def test_without_self_prompts_the_start_is_exactly_clip(joint):
    frames, bare = tiny_frames(), tiny_backbone(joint=joint)
    clip = functional.normalize(bare.encode_video(frames).clip, dim=-1)
    method = tiny_method(OmniCLIP, Config(spg="none", head="text_fixed"), joint=joint).eval()
    text = functional.normalize(
        bare.encode_text(bare.tokenize(["A video of jump action", "A video of drinking tea action"])), dim=-1
    )
    method.set_classes(["jump", "drinking_tea"])
    out = method(frames)
    assert torch.equal(out.video, clip)
    assert torch.equal(out.text, text)
    assert torch.equal(out.logits, bare.logit_scale * clip @ text.T)
    prompted = tiny_method(OmniCLIP, Config(spg="none"), joint=joint).eval()
    assert torch.equal(prompted.encode_video(frames), clip)


def test_alpha_waits_for_the_up_projection_and_then_both_learn():
    method = tiny_method(OmniCLIP, Config(spg="none")).train()
    part = method.temporal_adapter["2"]

    def gradients():
        method.zero_grad()
        method.losses(method(tiny_frames()), torch.tensor([0, 1]))["ce"].backward()
        return part.alpha.grad.abs().max().item(), part.up.weight.grad.abs().max().item()

    alpha, up = gradients()
    assert alpha == 0.0 < up
    torch.nn.init.normal_(part.up.weight, std=0.02)
    assert all(gradient > 0 for gradient in gradients())


def test_layers_are_a_range_of_the_video_tower():
    assert list(tiny_method(OmniCLIP, Config(layers="1-2")).temporal_adapter) == ["1", "2"]
    assert not tiny_method(OmniCLIP, Config(pta="none")).temporal_adapter
    with pytest.raises(UserError, match="layers=2-4 does not fit the video tower of tiny, which has 3 layers"):
        tiny_method(OmniCLIP, Config(layers="2-4"))


@torch.no_grad()
def test_a_shared_projector_serves_all_blocks():
    method = tiny_method(OmniCLIP, Config(spg_share=True))
    calls = received(method.self_prompts["1"])
    method.backbone.encode_video(tiny_frames())
    assert (list(method.self_prompts), len(calls)) == (["1"], 3)


@torch.no_grad()
def test_the_encoding_alone_gives_frames_an_order():
    method = tiny_method(OmniCLIP, Config(pta="none", spg="none", head="text_fixed")).eval()
    frames = tiny_frames(2, 4)
    assert torch.allclose(method(frames).logits, method(frames.flip(1)).logits, atol=1e-4)
    torch.nn.init.normal_(method.temporal_encoding.table)
    assert not torch.allclose(method(frames).logits, method(frames.flip(1)).logits, atol=1e-2)


def test_the_printed_equation_5_learns_from_the_first_step():
    method = tiny_method(OmniCLIP, Config(mha_residual=False)).train()
    method.losses(method(tiny_frames()), torch.tensor([0, 1]))["ce"].backward()
    gradient = method.frame_attention.attention.out.weight.grad
    assert gradient.isfinite().all()
    assert gradient.any()


# ------------------------------------------------------------------------------------------------------ texts and heads


@torch.no_grad()
@both_families
def test_texts_see_the_video_unless_their_weight_is_zero(joint):
    method = disturb(tiny_method(OmniCLIP, joint=joint).eval())
    given = received(method.video_prompts)
    out = method(tiny_frames())
    assert out.text.shape == (2, 3, 40)
    assert not torch.allclose(out.text[0], out.text[1], atol=1e-4)
    scale = method.backbone.logit_scale
    assert torch.allclose(out.logits, scale * (out.video[:, None] * out.text).sum(-1), atol=1e-5)
    torch.nn.init.zeros_(method.video_prompts.weight)
    bare = tiny_backbone(joint=joint)
    frozen = bare.encode_text(bare.tokenize([method.class_prompt(name) for name in CLASSES]))
    assert torch.equal(given[0], frozen)  # CLIP's features as they are, not normalised
    assert torch.allclose(method(tiny_frames()).text, functional.normalize(frozen, dim=-1).expand(2, 3, 40), atol=1e-6)


@torch.no_grad()
@both_families
def test_video_prompts_see_no_self_prompts(joint):
    method = tiny_method(OmniCLIP, joint=joint).eval()
    patches = []
    method.video_prompts.register_forward_pre_hook(lambda _m, arguments: patches.append(arguments[1]))
    method(tiny_frames())
    hidden = method.backbone.encode_video(tiny_frames()).hidden
    expected = hidden[:, 1:19].view(2, 6, 3, 64).transpose(1, 2) if joint else hidden[:, 1:7].view(2, 3, 6, 64)
    assert torch.equal(patches[0].flatten(2, 3), expected)


@pytest.mark.parametrize("head", ["text", "text_fixed"])
def test_class_texts_are_encoded_once_a_run(head):
    method = tiny_method(OmniCLIP, Config(head=head))
    calls = received(method.backbone.block("text", 1).module.mlp)
    train(method, 3)
    method.eval()(tiny_frames())
    assert method.encode_classes().norm(dim=-1).tolist() == pytest.approx([1, 1, 1])
    assert len(calls) == 1


def test_the_linear_head_needs_no_text():
    method = tiny_method(OmniCLIP, Config(head="linear"))
    calls = received(method.backbone.block("text", 1).module.mlp)
    train(method, 3)
    with torch.no_grad():
        out = disturb(method).eval()(tiny_frames())
        normed = functional.layer_norm(out.video, (40,), method.head_norm.weight, method.head_norm.bias)
        linear = method.head.linear
        assert torch.allclose(out.logits, normed @ linear.weight.T + linear.bias, atol=1e-5)
    assert method.head.dropout.p == 0.5
    assert out.text.shape == (0, 40)
    assert not calls


@torch.no_grad()
def test_the_linear_head_orders_its_classes_and_leaves_others_to_texts():
    method = disturb(tiny_method(OmniCLIP, Config(head="linear"))).eval()
    first = method(tiny_frames()).logits
    method.set_classes(CLASSES[::-1])
    assert torch.equal(method(tiny_frames()).logits, first.flip(1))
    method.set_classes(["jump", "flying a kite"])
    out = method(tiny_frames())
    assert torch.allclose(out.logits, method.backbone.logit_scale * out.video @ out.text.T, atol=1e-5)
    with pytest.raises(UserError, match="give it at least 2 class names, not 0"):
        OmniCLIP(tiny_backbone(), Config(head="linear"))
    with pytest.raises(UserError, match="call set_classes"):
        OmniCLIP(tiny_backbone(), Config(head="linear"), CLASSES)(tiny_frames())


def test_retrieval_needs_texts_that_do_not_see_the_video():
    assert "set method.head=text_fixed" in tiny_method(OmniCLIP).retrieval_problems()[0]
    assert "set method.head=text_fixed" in tiny_method(OmniCLIP, Config(head="linear")).retrieval_problems()[0]
    method = disturb(tiny_method(OmniCLIP, Config(head="text_fixed")))
    assert method.retrieval_problems() == []
    captions = ["a man rides a bike", "tea"]
    method.pair_losses(method.encode_video(tiny_frames()), captions)["contrastive"].backward()
    assert all(parameter.grad is not None for parameter in method.trainable_parameters())


# ------------------------------------------------------------------------------------------------ recipes and the whole


def test_presets_are_the_published_settings():
    def recipe(name):
        r = OmniCLIP.presets[name].recipe
        return r.batch_size, r.lr, r.epochs, r.weight_decay, r.frames

    assert recipe("full") == (256, 2e-3, 50, 0.003, 8)
    assert recipe("ssv2") == (256, 3.5e-3, 50, 0.01, 8)
    assert recipe("hmdb_ucf") == (32, 2e-3, 30, 0.003, 8)
    assert recipe("fewshot") == recipe("b2n") == (8, 2e-3, 30, 0.003, 32)
    assert recipe("zeroshot") == (256, 2e-3, 10, 0.003, 32)
    for name, preset in OmniCLIP.presets.items():
        r = preset.recipe
        assert (r.beta1, r.beta2, r.eps, r.min_lr_ratio, r.warmup_epochs) == (0.9, 0.98, 1e-8, 0.01, 5)
        assert (r.label_smoothing, r.mixup, r.cutmix, r.no_decay) == (0.1, 0.8, 1.0, "vectors")
        assert (r.crop, r.flip, r.jitter, r.gray, r.randaugment) == ("multiscale", 0.5, 0.8, 0.2, False)
        assert (r.schedule, preset.method.template) == ("through", "A video of {} action")
        assert preset.method.head == ("linear" if name == "ssv2" else "text")
        assert dataclasses.replace(preset.method, head="text") == Config()


def test_soft_labels_are_a_cross_entropy():
    method = tiny_method(OmniCLIP).eval()
    out = method(tiny_frames())
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    expected = -(soft * out.logits.log_softmax(-1)).sum(-1).mean()
    assert list(method.losses(out, soft)) == ["ce"]
    assert torch.allclose(method.losses(out, soft)["ce"], expected)


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Config(ratio=0.0, layers="12-8", spg_hidden=-1)
    for said in ("ratio=0.0", "layers='12-8'", "spg_hidden=-1"):
        assert said in str(caught.value)
    with pytest.raises(UserError, match="head='linaer' is not one of text, linear, text_fixed"):
        Config(head="linaer")
    with pytest.raises(UserError, match=r"ratio=0\.2 makes 13 hidden units of the 64 of tiny, which its 2 heads"):
        tiny_method(OmniCLIP, Config(ratio=0.2))


@both_families
def test_a_copy_in_series_acts_on_its_own_backbone(joint):
    method = tiny_method(OmniCLIP, Config(pta="cascade"), joint=joint)
    before = method.encode_video(tiny_frames())
    twin = disturb(copy.deepcopy(method))
    assert torch.equal(method.encode_video(tiny_frames()), before)
    assert not torch.allclose(twin.encode_video(tiny_frames()), before, atol=1e-3)


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(OmniCLIP), 40, lr=3e-3)
    assert losses[-1] < 0.5 * losses[0]
