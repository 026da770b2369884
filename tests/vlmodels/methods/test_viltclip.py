"""ViLT-CLIP, choice by choice: each test pins one decision of the paper's equations or of our reading of them."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.classifier import contrastive_loss, unit
from vlmodels.clip import create
from vlmodels.describe import describe
from vlmodels.errors import UserError
from vlmodels.methods.viltclip import ViLTCLIP, scenario_loss

Config = ViLTCLIP.Config


def small(**settings):
    """Four prompts in two of the tiny towers' three layers, learned by the text tower, then by the video tower."""
    return tiny_method(ViLTCLIP, Config(**{"tokens": 4, "depth": 2, "split": 1} | settings))


def class_features(method):
    method.class_cache.clear()
    return method.encode_classes()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ViLTCLIP.presets["fewshot"].method, 864_512),
        (ViLTCLIP.presets["b2n"].method, 886_016),
        (Config(tokens=16, depth=10, split=5), 890_112),
        (ViLTCLIP.presets["retrieval"].method, 833_792),
        (Config(), 864_512),
        (Config(per_layer_maps=True), 4_803_072),
        (Config(variant="independent"), 153_600),
        (Config(variant="independent", tokens=4, video_tokens=6), 12 * (4 * 512 + 6 * 768)),
        (Config(variant="text_only"), 61_440),
        (Config(tokens=1, depth=2, split=2), 2 * 512 + 512 * 768 + 768),  # no layer is left to the video tower
    ],
)
def test_parameter_counts(config, expected):
    with torch.device("meta"):
        method = ViLTCLIP(create("ViT-B-16-quickgelu", weights=None), config)
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


@pytest.mark.parametrize(("preset", "gmacs"), [("fewshot", 295.8), ("b2n", 304.7), ("retrieval", 289.9)])
def test_costs(preset, gmacs):
    found = describe("viltclip", "ViT-B-16-quickgelu", preset=preset, frames=16)
    assert found["gmacs_video"] == pytest.approx(gmacs, rel=1e-3)


def test_presets_are_the_published_settings():
    def setting(name):
        config, recipe = ViLTCLIP.presets[name].method, ViLTCLIP.presets[name].recipe
        return (
            (config.tokens, config.depth, config.split, config.alpha, config.temperature),
            (recipe.frames, recipe.epochs, recipe.batch_size, recipe.lr),
            (recipe.label_smoothing, recipe.mixup, recipe.cutmix, recipe.crop),
        )

    soft = (0.1, 0.8, 1.0, "multiscale")
    assert setting("full") == ((10, 12, 6, 8.0, 0.07), (16, 30, 256, 8e-3), soft)
    assert setting("zeroshot") == ((10, 12, 6, 8.0, 0.07), (32, 10, 256, 8e-3), soft)
    assert setting("fewshot") == ((10, 12, 6, 8.0, 0.07), (32, 30, 64, 8e-3), soft)
    assert setting("b2n") == ((16, 10, 6, 8.0, 0.07), (32, 12, 64, 4e-2), soft)
    assert setting("retrieval") == ((6, 12, 6, 8.0, 0.07), (12, 12, 128, 8e-3), (0.0, 0.0, 0.0, "multiscale"))
    for preset in ViLTCLIP.presets.values():
        assert preset.method.template == "a video of a person doing {}."
        recipe = preset.recipe
        assert (recipe.weight_decay, recipe.beta1, recipe.beta2, recipe.eps) == (1e-3, 0.9, 0.98, 1e-8)
        assert (recipe.warmup_epochs, recipe.min_lr_ratio, recipe.schedule) == (5, 0.01, "through")


@pytest.mark.parametrize(
    ("settings", "text", "video", "maps"),
    [
        ({"depth": 0, "split": 0}, "1", "23", ("text_to_video.shared", "video_to_text.shared")),
        ({"depth": 3, "split": 2}, "12", "3", ("text_to_video.shared", "video_to_text.shared")),
        ({"split": 2}, "12", "", ("text_to_video.shared",)),
        ({"per_layer_maps": True}, "1", "2", ("text_to_video.1", "video_to_text.2")),
        ({"variant": "independent"}, "12", "12", ()),
        ({"variant": "text_only"}, "12", "", ()),
    ],
)
def test_what_learns_in_which_layer(settings, text, video, maps):
    expected = {f"text_prompts.{layer}.tokens" for layer in text} | {f"video_prompts.{layer}.tokens" for layer in video}
    expected |= {f"{name}.{kind}" for name in maps for kind in ("weight", "bias")}
    assert set(small(**settings).adapter_state_dict()) == expected


# ----------------------------------------------------------------------------------- the equations, tower by tower


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_video_tower_is_equation_11(joint):
    """``[E_i, _] = V_i([E_{i-1}, F(P_{i-1})])`` up to K, learned prompts up to J, then what comes out."""
    method = disturb(tiny_method(ViLTCLIP, Config(tokens=4, depth=2, split=1), joint=joint), scale=0.5)
    bare, frames = tiny_backbone(joint=joint), tiny_frames(2, 3)
    start = []
    bare.add("video", 0, "embed", lambda x, _: start.append(x) or x)
    bare.encode_video(frames)
    blocks = bare.model.visual.transformer.resblocks

    def followed_by(x, prompts):
        return torch.cat([x, prompts.expand(len(x), -1, -1)], dim=1)

    x, length = start[0], start[0].shape[1]
    first = method.text_prompts["1"].tokens @ method.text_to_video["shared"].weight.T
    x = blocks[0](bare.model.visual.ln_pre(followed_by(x, first + method.text_to_video["shared"].bias)))
    x = blocks[1](followed_by(x[:, :length], method.video_prompts["2"].tokens))
    x = blocks[2](x)
    features = method.backbone.encode_video(frames)
    assert features.hidden.shape[1] == length + 4 == 1 + 6 * (3 if joint else 1) + 4
    assert torch.allclose(features.hidden, x, atol=1e-5)
    pooled = (bare.model.visual.ln_post(x[:, 0]) @ bare.model.visual.proj).unflatten(0, (2, -1)).mean(dim=1)
    assert torch.allclose(method.encode_video(frames), unit(pooled), atol=1e-5)


@torch.no_grad()
def test_the_text_tower_is_equation_10():
    """``[W_i, _] = T_i([W_{i-1}, P_{i-1}])`` up to K, with ``F~(P~)`` up to J, prompts before the class tokens."""
    method, bare = disturb(small(), scale=0.5), tiny_backbone()
    model = bare.model
    texts = ["X X X X riding a bike.", "X X X X drinking tea.", "X X X X jump."]
    ids = bare.tokenizer(texts)  # the whole context, where the method cuts

    def with_prompts(x, prompts):
        return torch.cat([x[:, :1], prompts.expand(3, -1, -1), x[:, 5:]], dim=1)

    x = with_prompts(model.token_embedding(ids), method.text_prompts["1"].tokens) + model.positional_embedding
    blocks = model.transformer.resblocks
    x = blocks[0](x, attn_mask=model.attn_mask)
    x = blocks[1](
        with_prompts(x, method.video_to_text["shared"](method.video_prompts["2"].tokens)), attn_mask=model.attn_mask
    )
    x = model.ln_final(blocks[2](x, attn_mask=model.attn_mask))
    expected = x[torch.arange(3), ids.argmax(dim=-1)] @ model.text_projection
    assert torch.allclose(method.encode_classes(), unit(expected), atol=1e-5)


def test_the_end_token_stands_behind_prompts_and_name():
    with torch.device("meta"):
        backbone = create("ViT-B-16-quickgelu", weights=None)
        method = ViLTCLIP(backbone, ViLTCLIP.presets["fewshot"].method)
    assert backbone.tokenizer([method.class_prompt("drinking_tea")]).argmax() == 1 + 10 + 3


@torch.no_grad()
def test_prompts_reach_the_class_feature_and_what_stands_behind_its_end_does_not():
    method = small()
    before, places = class_features(method), method.class_tokens.argmax(dim=-1)
    assert len(set(places.tolist())) > 1  # the shorter names are padded

    class Behind:
        def __call__(self, x, _):
            later = torch.arange(x.shape[1])[None] > places[:, None]
            return torch.where(later[:, :, None], torch.randn(x.shape), x)

    method.backbone.add("text", 0, "embed", Behind())
    assert torch.equal(class_features(method), before)
    disturb(method)
    assert not torch.allclose(class_features(method), before, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("layer", "changes"), [(1, False), (2, True)])
def test_up_to_depth_what_a_layer_makes_of_its_prompts_is_dropped(layer, changes):
    """Noise on the outputs at the prompts' places: replaced below layer J = 2, passed on from there."""
    method, frames = small(), tiny_frames()
    video, text = method.encode_video(frames), class_features(method)

    def noise(x, places):
        added = torch.zeros_like(x)
        added[:, places] = torch.randn(added[:, places].shape)
        return added

    method.backbone.add("video", layer, "parallel_block", lambda x, _: noise(x, slice(-4, None)))
    method.backbone.add("text", layer, "parallel_block", lambda x, _: noise(x, slice(1, 5)))
    assert torch.allclose(method.encode_video(frames), video, atol=1e-6) != changes
    assert torch.allclose(class_features(method), text, atol=1e-6) != changes


def test_learned_prompts_of_either_tower_serve_both():
    method = small()
    for loss in (method.encode_video(tiny_frames()).sum(), method.encode_classes().sum()):
        for prompts in (method.text_prompts["1"].tokens, method.video_prompts["2"].tokens):
            (gradient,) = torch.autograd.grad(loss, prompts, retain_graph=True)
            assert gradient.any()


@torch.no_grad()
def test_without_weights_the_maps_give_their_bias():
    method, seen = disturb(small(depth=3, split=2)), {}
    for tower, layer, site in (("video", 0, "embed"), ("video", 2, "tokens"), ("text", 3, "tokens")):
        method.backbone.add(tower, layer, site, lambda x, c: seen.setdefault((c.tower, c.layer), x))
    for linear in (method.text_to_video["shared"], method.video_to_text["shared"]):
        torch.nn.init.zeros_(linear.weight)
    method(tiny_frames())
    bias = method.text_to_video["shared"].bias
    assert torch.equal(seen["video", 0][:, -4:], bias.expand(6, 4, -1))
    assert torch.equal(seen["video", 2][:, -4:], bias.expand(6, 4, -1))
    assert torch.equal(seen["text", 3][:, 1:5], method.video_to_text["shared"].bias.expand(3, 4, -1))


@torch.no_grad()
def test_frames_have_no_order():
    method, frames = disturb(small()), tiny_frames(2, 4)
    assert torch.allclose(method.encode_video(frames), method.encode_video(frames[:, [2, 0, 3, 1]]), atol=1e-6)


def test_text_only_leaves_the_video_tower_without_a_graph():
    method = small(variant="text_only")
    assert not method.encode_video(tiny_frames()).requires_grad
    assert torch.equal(method.encode_video(tiny_frames()), unit(tiny_backbone().encode_video(tiny_frames()).clip))


# ------------------------------------------------------------------------------------------------------- the losses


@torch.no_grad()
def test_logits_are_cosines_over_tau():
    out = small()(tiny_frames())
    assert torch.allclose(out.logits, out.video @ out.text.T / 0.07, atol=1e-4)
    method = small(temperature=0.0)
    method.backbone.model.logit_scale.fill_(3.0)
    out = method(tiny_frames())
    assert torch.allclose(out.logits, out.video @ out.text.T * torch.tensor(3.0).exp(), atol=1e-4)


@torch.no_grad()
def test_scenario_loss_vanishes_where_the_prompts_are_the_template():
    """Its six words as prompts of the first layer make the template's text, and nothing is left to pull on."""
    method = small(tokens=6, depth=1, split=1)
    labels, out = torch.tensor([0, 1]), method(tiny_frames())
    start = method.losses(out, labels)["scenario"].item()
    ids = method.backbone.tokenizer(["a video of a person doing"])[0, 1:7]
    method.text_prompts["1"].tokens.copy_(method.backbone.model.token_embedding(ids))
    done = method.losses(method(tiny_frames()), labels)
    assert start > 0.1
    assert done["scenario"].item() == pytest.approx(0.0, abs=1e-5)
    assert set(method.losses(out, labels)) == {"ce", "scenario"}


def test_scenario_loss_draws_class_features_to_the_frozen_ones():
    frozen, text = unit(torch.randn(5, 8)), torch.randn(5, 8)
    values = [scenario_loss(unit(text + step * frozen), frozen).item() for step in (0, 1, 10, 1000)]
    assert values == sorted(values, reverse=True)
    assert scenario_loss(frozen, frozen).item() == pytest.approx(0.0, abs=1e-6)
    assert scenario_loss(-frozen, frozen).item() == pytest.approx(2.0)


def test_alpha_weighs_the_scenario_loss_and_zero_leaves_it_out():
    labels = torch.tensor([0, 1])

    def terms(alpha):
        method = small(alpha=alpha)
        return method.losses(method(tiny_frames()), labels)

    assert terms(8.0)["scenario"].item() == pytest.approx(8 * terms(1.0)["scenario"].item())
    assert set(terms(0.0)) == {"ce"}
    assert torch.equal(terms(8.0)["ce"], terms(0.0)["ce"])


def test_soft_labels_of_certain_classes_are_hard_labels():
    method, labels = small(), torch.tensor([2, 1])
    out = method(tiny_frames())
    soft = torch.nn.functional.one_hot(labels, 3).float()
    assert torch.allclose(method.losses(out, soft)["ce"], method.losses(out, labels)["ce"])


def test_frozen_class_texts_are_encoded_once():
    method, widths = small().train(), []
    method.backbone.model.token_embedding.register_forward_hook(lambda _m, args, _o: widths.append(len(args[0])))
    for _ in range(3):
        method.losses(method(tiny_frames()), torch.tensor([0, 1]))
    assert widths == [3] * 4  # learned at each step, frozen at the first


def test_pairs_of_videos_and_captions():
    method, captions = disturb(small()), ["a man rides a bike", "tea", "two people jump over a wall"]
    video = method.encode_video(tiny_frames(3))
    terms = method.pair_losses(video, captions)
    text = method.encode_captions(captions)
    bare = tiny_backbone()
    frozen = unit(bare.encode_text(bare.tokenize(captions)))  # as they are, without a template
    assert torch.allclose(terms["contrastive"], contrastive_loss(video @ text.T / 0.07), atol=1e-5)
    assert torch.allclose(terms["scenario"], 8 * (1 - (text * frozen).sum(-1)).mean(), atol=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad.any() for p in method.trainable_parameters())
    assert set(small(alpha=0.0).pair_losses(video.detach(), captions)) == {"contrastive"}
    apart = (method.caption_features([caption]) for caption in captions)  # rows may come from several workers
    again = method.pair_terms(video, *map(torch.cat, zip(*apart, strict=True)))
    assert {name: t.item() for name, t in again.items()} == pytest.approx({n: t.item() for n, t in terms.items()})


# ----------------------------------------------------------------------------------------------------- bad settings


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Config(tokens=0, depth=-1, split=-2, alpha=-1.0, temperature=-0.1, template="a video", video_tokens=3)
    for said in ("tokens=0", "depth=-1", "split=-2", "alpha=-1.0", "temperature=-0.1", "template", "video_tokens=3"):
        assert said in str(caught.value)
    with pytest.raises(UserError, match="per_layer_maps=True needs variant=coupled"):
        Config(variant="independent", per_layer_maps=True)


@pytest.mark.parametrize("preset", ["b2n", "fewshot", "retrieval"])
def test_published_depths_refuse_a_shallower_backbone(preset):
    config = ViLTCLIP.presets[preset].method
    with pytest.raises(UserError) as caught:
        ViLTCLIP(tiny_backbone(text_layers=4), config, ["jump", "standing on one leg with both arms up"])
    said = str(caught.value)
    assert (
        f"depth={config.depth} does not fit the shallower tower of tiny, which has 3 layers; use 1 to 3, or 0" in said
    )
    assert "split=6 is beyond the 3 layers" in said
    assert ("too long: standing on one leg" in said) == (config.tokens >= 10)


def test_layers_are_those_that_the_towers_share():
    method = tiny_method(ViLTCLIP, Config(tokens=4), video_layers=4, text_layers=2)
    assert (list(method.text_prompts), list(method.video_prompts)) == (["1"], ["2"])
    alone = tiny_method(ViLTCLIP, Config(tokens=4, variant="text_only"), video_layers=2, text_layers=4)
    assert list(alone.text_prompts) == ["1", "2", "3", "4"]


def test_learns_the_clips_that_it_sees():
    losses = train(small(alpha=0.0), 60, lr=2e-3)
    assert losses[-1] < 0.5 * losses[0]
