"""ST-Adapter: the bottleneck by itself, in its places, and with the published classifier."""

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
from vlmodels.methods.st_adapter import Bottleneck, STAdapter
from vlmodels.methods.zeroshot import ZeroShot

Config = STAdapter.Config
NAMES = [str(i) for i in range(400)]


@pytest.mark.parametrize(
    ("config", "frames", "trainable", "gmacs"),
    [
        (Config(), 8, 7_110_144, 151.6),  # published: 7 M, 911 / 3 and 607 at 16 and 32 frames
        (Config(), 16, 7_110_144, 303.3),
        (Config(places="mlp"), 8, 7_110_144, 151.6),
        (Config(places="both"), 8, 14_220_288, 162.7),  # published: 489 / 3
        (Config(layers="8-12", dims=64), 8, 5 * (2 * 768 * 64 + 5 * 64 + 768), None),
        (Config(head="linear"), 8, 7_110_144 + 768 * 400 + 400, 151.6),
    ],
)
def test_parameters_and_cost(config, frames, trainable, gmacs):
    with torch.device("meta"):
        method = STAdapter(create("ViT-B-16-quickgelu", weights=None, num_frames=frames), config, NAMES).eval()
        clip = torch.empty(1, frames, 3, 224, 224)
    assert sum(p.numel() for p in method.trainable_parameters()) == trainable
    if gmacs is not None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            method.encode_video(clip)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


# ---------------------------------------------------------------------------------- the bottleneck by itself


def bottleneck(width=64, dims=16):
    torch.manual_seed(0)
    adapter = Bottleneck(width, dims)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return adapter


def sequence(cls, patches, context):
    return join_tokens(Tokens(cls[:, :, None], patches, cls[:, :, None, :][:, :, :0]), context)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_it_is_the_equation_on_patches_and_class_tokens_pass(joint):
    adapter, context = bottleneck(), ClipContext(2, 4, (2, 3), 1, "video", joint)
    cls, patches = torch.randn(2, 1 if joint else 4, 64), torch.randn(2, 4, 2, 3, 64)
    found = split_tokens(adapter(sequence(cls, patches, context), context), context)
    hidden = patches @ adapter.down.weight.T + adapter.down.bias
    mixed = adapter.conv.bias.expand_as(hidden).clone()
    for t in range(4):
        for tap, there in enumerate((t - 1, t, t + 1)):
            if 0 <= there < 4:
                mixed[:, t] += adapter.conv.weight[:, 0, tap, 0, 0] * hidden[:, there]
    expected = patches + mixed @ adapter.up.weight.T + adapter.up.bias
    assert torch.allclose(found.patches, expected, atol=1e-5)
    assert torch.equal(found.prefix[:, :, 0], cls)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_a_patch_reaches_itself_in_the_frames_next_to_it(joint):
    adapter, context = bottleneck(), ClipContext(1, 5, (2, 3), 1, "video", joint)
    cls, patches = torch.randn(1, 1 if joint else 5, 64), torch.randn(1, 5, 2, 3, 64)
    other = patches.clone()
    other[0, 2, 1, 0] += 1
    found, moved = (
        split_tokens(adapter(sequence(cls, p, context), context), context).patches[0] for p in (patches, other)
    )
    assert {tuple(place) for place in (found != moved).any(-1).nonzero().tolist()} == {(t, 1, 0) for t in (1, 2, 3)}


def test_the_convolution_and_all_biases_start_at_zero():
    adapter = Bottleneck(64, 16)
    started = {name for name, value in adapter.named_parameters() if value.any()}
    assert started == {"down.weight", "up.weight"}


# ------------------------------------------------------------------------------------------------- in its place


@torch.no_grad()
@pytest.mark.parametrize(("places", "before_attention"), [("attention", True), ("mlp", False), ("both", True)])
def test_places(places, before_attention):
    method, bare, frames = tiny_method(STAdapter, Config(places=places, layers="2")), tiny_backbone(), tiny_frames()
    disturb(method)
    inputs = {}
    for name, backbone in (("adapted", method.backbone), ("bare", bare)):
        block = backbone.block("video", 2).module
        for norm in ("ln_1", "ln_2"):
            getattr(block, norm).register_forward_hook(
                lambda _m, args, _o, key=(name, norm): inputs.__setitem__(key, args[0])
            )
        backbone.encode_video(frames)
    assert torch.equal(inputs["adapted", "ln_1"], inputs["bare", "ln_1"]) != before_attention
    assert not torch.equal(inputs["adapted", "ln_2"], inputs["bare", "ln_2"])
    assert len(method.adapter) == (2 if places == "both" else 1)


def test_blocks_below_the_range_keep_no_graph_and_text_is_encoded_once():
    method = tiny_method(STAdapter, Config(layers="3")).train()
    model, graphs, runs = method.backbone.model, [], []
    for video, text in zip(model.visual.transformer.resblocks, model.transformer.resblocks, strict=True):
        video.mlp.register_forward_hook(lambda _m, _a, out: graphs.append(out.requires_grad))
        text.mlp.register_forward_hook(lambda _m, _a, _o: runs.append(1))
    for _ in range(2):
        method(tiny_frames())
    assert graphs == [False, False, True] * 2
    assert len(runs) == 3


def test_all_problems_are_reported_at_once():
    with pytest.raises(UserError, match=r"layers='0' is not a range.*dims=0 must"):
        Config(layers="0", dims=0)
    with pytest.raises(UserError, match="layers=2-4 does not fit the video tower of tiny, which has 3 layers"):
        tiny_method(STAdapter, Config(layers="2-4"))


# --------------------------------------------------------------------------------------------- the classifier


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_classifier_reads_the_norm_of_the_mean_class_token(joint):
    method = disturb(tiny_method(STAdapter, Config(head="linear"), joint=joint)).eval()
    features = method.backbone.encode_video(tiny_frames())
    pooled = method.backbone.model.visual.ln_post(features.tokens.prefix[:, :, 0].mean(1))
    expected = pooled @ method.head.linear.weight.T + method.head.linear.bias
    assert torch.allclose(method(tiny_frames()).logits.softmax(-1), expected.softmax(-1), atol=1e-5)
    method.train()
    assert not torch.equal(method(tiny_frames()).logits, method(tiny_frames()).logits)  # its dropout


@torch.no_grad()
def test_with_the_classifier_other_classes_are_scored_by_their_texts():
    method, plain = tiny_method(STAdapter, Config(head="linear")).eval(), tiny_method(ZeroShot).eval()
    for other in (method, plain):
        other.set_classes(["swim", "sneeze"])
    assert torch.equal(method(tiny_frames()).logits, plain(tiny_frames()).logits)


@pytest.mark.parametrize("joint", [False, True])
def test_the_published_preset_trains_saves_and_loads(joint, tmp_path):
    preset = STAdapter.presets["linear_head"]
    assert (preset.recipe.lr, preset.recipe.batch_size, preset.recipe.epochs) == (1e-3 * 192 / 256, 192, 12)
    method = tiny_method(STAdapter, preset.method, joint=joint)
    train(method, 3)
    save_adapter(tmp_path, method, classes=CLASSES)
    loaded = load_adapter(tmp_path, tiny_backbone(joint=joint)).method
    with torch.no_grad():
        assert torch.equal(loaded(tiny_frames()).logits, method.eval()(tiny_frames()).logits)


def test_the_classifier_needs_classes():
    with pytest.raises(UserError, match="at least 2 class names, not 0"):
        STAdapter(tiny_backbone(), Config(head="linear"))


@pytest.mark.parametrize("head", ["text", "linear"])
def test_learns_the_clips_that_it_sees(head):
    losses = train(tiny_method(STAdapter, Config(dims=16, head=head)), 60, lr=1e-2)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
