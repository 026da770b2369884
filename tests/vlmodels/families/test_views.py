"""Views against the families' own code: the same features whole, by parts, and with hooks at every site."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.tiny_clip import tiny_backbone, tiny_frames
from tests.helpers.tiny_families import FAMILIES, tiny_family, tiny_family_backbone
from vlmodels.backbone import Backbone
from vlmodels.clip_context import ClipContext
from vlmodels.families.views import Call
from vlmodels.sites import Site, run_block
from vlmodels.weight_files import build

TEXTS = ["a man rides a bike", "tea", "a dog that jumps over a fence"]

every_family = pytest.mark.parametrize("family", FAMILIES)


def with_graph(backbone):
    """Let every block run by its parts, with values unchanged."""
    for tower in ("video", "text"):
        backbone.add(tower, 1, "tokens", lambda x, _: x + torch.zeros((), requires_grad=True))
    return backbone


@every_family
def test_features_are_the_model_s_own(family):
    model, frames = tiny_family(family).eval(), tiny_frames(2, 3)
    backbone = tiny_family_backbone(family)
    tokens = backbone.tokenizer(TEXTS)
    with torch.no_grad():
        images, texts = model.encode_image(frames.flatten(0, 1)), model.encode_text(tokens)
        features = backbone.encode_video(frames)
        assert torch.equal(features.frame.flatten(0, 1), images)
        assert torch.equal(backbone.encode_text(tokens), texts)
        assert torch.allclose(backbone.encode_text(backbone.tokenize(TEXTS)), texts, atol=1e-5)
        assert torch.allclose(features.clip, images.unflatten(0, (2, 3)).mean(1), atol=1e-6)
    learning = with_graph(backbone)
    assert torch.allclose(learning.encode_video(frames).frame.flatten(0, 1), images, atol=1e-5)
    assert torch.allclose(learning.encode_text(tokens), texts, atol=1e-5)


@every_family
def test_a_bidirectional_text_keeps_its_whole_context(family):
    backbone = tiny_family_backbone(family)
    assert (backbone.tokenize(TEXTS).shape[1] == 20) == (family in ("siglip", "clipa"))


@every_family
@pytest.mark.parametrize("site", ["qkv_weight", "post_attn", "pre_mlp", "parallel_mlp", "parallel_block_ln"])
def test_a_hook_acts_where_its_site_says(family, site):
    """One block by the family's own modules, with the hook's part put in by hand."""
    backbone, added = tiny_family_backbone(family), torch.randn(64)
    block, x = backbone.block("video", 2), torch.randn(2, backbone.spec.prefix + 6, 64)
    _, call = backbone._video.embed(tiny_frames(1, 2)[0], ClipContext(1, 2, (2, 3), 0, "video"), lambda x: x)
    hooks: dict[Site, list] = {site: [lambda value, _: value + added if site != "qkv_weight" else 2 * value]}
    context = ClipContext(1, 2, (2, 3), 2, "video", prefix=backbone.spec.prefix)
    with torch.no_grad():
        found = run_block(block, x, call, hooks, context)
        normed = block.norm1(x)
        doubled = copy.deepcopy(block)
        if site == "qkv_weight":
            for weight in doubled.qkv:
                weight.mul_(2)
        attended = doubled.attention(normed, call)
        u = x + block.scale1(attended + (added if site == "post_attn" else 0))
        u = u + (added if site == "pre_mlp" else 0)
        out = u + block.scale2(block.mlp(block.norm2(u)))
        out = out + (u + added if site == "parallel_mlp" else 0)
        out = out + (normed + added if site == "parallel_block_ln" else 0)
    assert torch.allclose(found, out, atol=1e-5)
    assert not torch.allclose(found, block.whole(x, call), atol=1e-2)


def rotate(x, angles):
    """Rotate pairs of neighbours of x (...,N,2d) by angles (N,d): complex multiplication."""
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones(()), angles)
    return torch.view_as_real(turned).flatten(-2)


@torch.no_grad()
@pytest.mark.parametrize("family", ["pe", "eva02"])
@pytest.mark.parametrize("appended", [0, 3])
def test_patches_are_rotated_by_their_places_and_no_other_token(family, appended):
    """RoPE by complex numbers; the class token and what methods append stay as they are."""
    backbone = tiny_family_backbone(family)
    block, x = backbone.block("video", 1), torch.randn(2, 1 + 6 + appended, 64)
    _, call = backbone._video.embed(tiny_frames(1, 2)[0], ClipContext(1, 2, (2, 3), 0, "video"), lambda x: x)
    sines, cosines = call.rotation.chunk(2, -1)
    angles = torch.atan2(sines, cosines)[:, ::2]  # timm repeats each for the two of a pair
    plain = block.project(x, Call())
    found = block.project(x, call)
    for got, bare in zip(found[:2], plain[:2], strict=True):
        expected = torch.cat([bare[:, :, :1], rotate(bare[:, :, 1:7], angles), bare[:, :, 7:]], dim=2)
        assert torch.allclose(got, expected, atol=1e-5)
    assert torch.equal(found[2], plain[2])
    assert (block.whole(x, call) is None) == bool(appended)
    assert angles.abs().max() > 0.5


@torch.no_grad()
@pytest.mark.parametrize("family", ["pe", "eva02"])
def test_attention_along_time_needs_no_rotation(family):
    """Tokens of one place turn by the same angle, which leaves every product of query and key as it is."""
    block, x = tiny_family_backbone(family).block("video", 1), torch.randn(2, 1 + 4, 64)
    angle = torch.full((4, 32), 0.7)
    same_place = Call(rotation=torch.cat([angle.sin(), angle.cos()], -1))
    query, key, _ = block.project(x, same_place)
    plain_query, plain_key, _ = block.project(x, Call())
    scores, plain = (q[:, :, 1:] @ k[:, :, 1:].mT for q, k in ((query, key), (plain_query, plain_key)))
    assert torch.allclose(scores, plain, atol=1e-5)


@torch.no_grad()
@every_family
def test_appended_tokens_are_seen_by_the_patches_but_not_pooled(family):
    frames, bare = tiny_frames(), tiny_family_backbone(family)
    last, first = tiny_family_backbone(family), tiny_family_backbone(family)
    for backbone, layer in ((last, 3), (first, 1)):
        extra = torch.randn(4, 64)
        backbone.add("video", layer, "tokens", lambda x, _, e=extra: torch.cat([x, e.expand(len(x), -1, -1)], 1))
    clip = bare.encode_video(frames).clip
    assert not torch.allclose(first.encode_video(frames).clip, clip, atol=1e-3)
    features = last.encode_video(frames)
    own = features.hidden[:, : bare.spec.prefix + 6]
    assert torch.equal(features.pooled, last._video.pool(own).unflatten(0, (2, 3)))


@torch.no_grad()
def test_what_papers_read_as_the_class_token():
    """The one rule: the normed class token where a tower pools by it, else what its map or mean makes of the tokens."""
    frames = tiny_frames()
    clip, siglip, clipa = tiny_backbone(), tiny_family_backbone("siglip"), tiny_family_backbone("clipa")
    features = clip.encode_video(frames)
    tokens = features.tokens.prefix[:, :, 0]
    assert torch.allclose(features.pooled, clip.video_norm(tokens), atol=1e-6)
    assert torch.allclose(features.mean_token, clip.video_norm(tokens.mean(1)), atol=1e-6)
    features = clipa.encode_video(frames)
    patches = features.tokens.patches.flatten(2, 3).mean(2)
    assert torch.allclose(features.pooled, clipa.video_norm(patches), atol=1e-5)
    features, trunk = siglip.encode_video(frames), siglip.model.visual.trunk
    mapped = trunk.attn_pool(trunk.norm(features.hidden))
    assert torch.allclose(features.pooled.flatten(0, 1), mapped, atol=1e-6)
    assert features.tokens.prefix.shape[2] == 0
    for other in (siglip, clipa):
        features = other.encode_video(frames)
        assert torch.allclose(features.mean_token, features.pooled.mean(1), atol=1e-6)


@torch.no_grad()
def test_a_block_that_norms_after_its_parts():
    """EVA02-E's blocks: ``x + norm1(attn(x))``, then ``+ norm2(mlp(.))``."""
    from timm.models.eva import Eva

    from tests.helpers.tiny_families import TimmModel
    from vlmodels.families.timm_eva import Video

    torch.manual_seed(0)
    trunk = Eva(img_size=16, patch_size=8, embed_dim=64, depth=2, num_heads=2, num_classes=8, use_post_norm=True)
    view, x = Video(TimmModel(trunk.eval())), torch.randn(2, 5, 64)
    block, own = view.blocks[0], trunk.blocks[0]
    assert isinstance(block.norm1, nn.Identity)
    expected = x + own.norm1(own.attn(x))
    expected = expected + own.norm2(own.mlp(expected))
    context = ClipContext(2, 1, (2, 2), 1, "video")
    assert torch.allclose(run_block(block, x, Call(), {}, context), expected, atol=1e-5)


class Ids:
    """Token ids without a vocabulary: random ones, then the end token."""

    def __init__(self, length, words, end):
        self.context_length, self.words, self.end = length, words, end

    def __call__(self, texts):
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            words = min(len(text.split()), self.context_length - 1)
            row[:words] = torch.randint(3, self.words - 1, (words,))
            row[words] = self.end
        return ids


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-16-SigLIP2",
        "PE-Core-B-16",
        "EVA02-B-16",
        "MobileCLIP2-B",
        "ViTamin-S",
        "ViT-L-14-CLIPA",
        "ViT-L-14-worldwide",
    ],
)
def test_real_sizes_equal_open_clip(name):
    """Widths, grids and heads of the real models; two blocks a tower and 1,000 words, for memory's sake."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    config["text_cfg"] |= {"vocab_size": 1000, "layers": 2}
    if "layers" in config["vision_cfg"]:
        config["vision_cfg"]["layers"] = 2
    torch.manual_seed(0)
    model = build(config).eval()
    if hasattr(model.visual, "trunk"):
        model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:  # what starts at zero or one would hide a part that is left out
                parameter.add_(0.05 * torch.randn_like(parameter))
    end = config["text_cfg"].get("eos_id", 999)
    tokenizer = Ids(model.context_length, 1000, end)
    backbone = Backbone(model, tokenizer, name=name)
    frames, tokens = torch.randn(1, 1, 3, *backbone.spec.image_size), tokenizer(TEXTS)
    with torch.no_grad():
        image, text = model.encode_image(frames[0]), model.encode_text(tokens)
        assert torch.equal(backbone.encode_video(frames).frame[0], image)
        assert torch.equal(backbone.encode_text(tokens), text)
    with_graph(backbone)
    found = backbone.encode_video(frames).frame[0], backbone.encode_text(tokens)
    for got, expected in zip(found, (image, text), strict=True):
        assert functional.mse_loss(got, expected).sqrt() < 1e-5 * expected.abs().max()
