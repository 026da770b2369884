"""Independent prompts and CoOp, and what all prompt methods share: places, texts, refusals."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.classifier import unit
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.prompts import Prompts

Config = Prompts.Config


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Prompts.presets["fewshot"].method, 153_600),
        (Config(), 153_600),
        (Prompts.presets["b2n"].method, 16 * 9 * (512 + 768)),
        (Prompts.presets["coop"].method, 16 * 512),
        (Config(text_tokens=4, video_tokens=8, text_depth=12, video_depth=1), 4 * 12 * 512 + 8 * 768),
    ],
)
def test_parameter_counts(config, expected):
    with torch.device("meta"):
        method = Prompts(create("ViT-B-16-quickgelu", weights=None), config)
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


def test_presets_are_vifi_clips():
    def setting(name):
        config, recipe = Prompts.presets[name].method, Prompts.presets[name].recipe
        prompts = (config.text_tokens, config.text_depth, config.video_tokens, config.video_depth)
        return prompts, (recipe.frames, recipe.epochs, recipe.batch_size, recipe.lr)

    assert setting("b2n") == ((16, 9, 16, 9), (32, 11, 64, 4e-2))
    assert setting("fewshot") == ((10, 12, 10, 12), (32, 50, 64, 8e-3))
    assert setting("coop")[0][:3] == (16, 1, 0)
    assert {preset.recipe.mixup for preset in Prompts.presets.values()} == {0.8}


def test_prompts_start_small():
    method = tiny_method(Prompts, Config(text_tokens=14, video_tokens=100))
    for tokens in method.trainable_parameters():
        assert tokens.std().item() == pytest.approx(0.02, rel=0.1)


@torch.no_grad()
def test_each_tower_has_its_own_number_and_depth():
    method = disturb(tiny_method(Prompts, Config(text_tokens=4, text_depth=1, video_tokens=5, video_depth=2)))
    assert {name: tuple(value.shape) for name, value in method.adapter_state_dict().items()} == {
        "text_prompts.1.tokens": (4, 48),
        "video_prompts.1.tokens": (5, 64),
        "video_prompts.2.tokens": (5, 64),
    }
    bare, frames = tiny_backbone(), tiny_frames(1, 2)
    visual = bare.model.visual
    start = []
    bare.add("video", 0, "embed", lambda x, _: start.append(x) or x)
    bare.encode_video(frames)
    blocks, (one, two) = (
        visual.transformer.resblocks,
        (p.tokens.expand(2, -1, -1) for p in method.video_prompts.values()),
    )
    x = blocks[0](visual.ln_pre(torch.cat([start[0], one], dim=1)))
    x = blocks[2](blocks[1](torch.cat([x[:, :-5], two], dim=1)))
    assert torch.allclose(method.backbone.encode_video(frames).hidden, x, atol=1e-5)


@torch.no_grad()
def test_coop_replaces_placeholders_by_its_context():
    """With the embeddings of words as context, the class text is those words and the name."""
    method, bare = tiny_method(Prompts, Config(text_tokens=3, video_tokens=0, text_depth=1)), tiny_backbone()
    words = bare.tokenizer(["somebody who is"])[0, 1:4]
    method.text_prompts["1"].tokens.copy_(bare.model.token_embedding(words))
    expected = bare.encode_text(bare.tokenize([f"somebody who is {name.replace('_', ' ')}." for name in CLASSES]))
    assert torch.allclose(method.encode_classes(), unit(expected), atol=1e-5)


def test_a_tower_without_prompts_is_the_frozen_one():
    bare, frames = tiny_backbone(), tiny_frames()
    text_only = tiny_method(Prompts, Config(video_tokens=0)).train()
    assert torch.equal(text_only.encode_video(frames), unit(bare.encode_video(frames).clip))
    assert not text_only.encode_video(frames).requires_grad
    video_only, runs = tiny_method(Prompts, Config(text_tokens=0)).train(), []
    video_only.backbone.model.transformer.resblocks[0].register_forward_hook(lambda *_: runs.append(1))
    texts = [f"a video of {name.replace('_', ' ')}." for name in CLASSES]
    for _ in range(2):
        assert torch.equal(video_only(frames).text, unit(bare.encode_text(bare.tokenize(texts))))
    assert runs == [1]
    assert torch.equal(video_only.caption_tokens(texts), bare.tokenize(texts))


def test_captions_lose_words_but_never_the_end_token():
    method, caption = tiny_method(Prompts, Config(text_tokens=10)), "one two three four five six seven eight nine ten"
    end, words = method.backbone.tokenizer([caption]).max(), method.backbone.tokenizer([caption])[0, 1:9]
    tokens = method.caption_tokens([caption, "tea"])
    assert tokens.shape == (2, 20)
    assert torch.equal(tokens[0, 11:19], words)
    assert tokens[0, 19] == tokens[1, 12] == end
    assert method.encode_captions([caption, "tea"]).isfinite().all()


def test_a_name_fits_to_the_last_token():
    four = "riding a bike"  # with its full stop
    tiny_method(Prompts, Config(text_tokens=14)).set_classes([four, "jump"])
    with pytest.raises(
        UserError, match=r"15 prompts leave 3 of the 20 tokens of tiny's context .*too long: riding a bike;"
    ):
        Prompts(tiny_backbone(), Config(text_tokens=15), [four, "jump"])
    with pytest.raises(UserError, match=r"18 prompts leave 0 of the 20 .*full stop; use fewer"):
        Prompts(tiny_backbone(), Config(text_tokens=18))
    assert Prompts(tiny_backbone(), Config(text_tokens=15)).trainable_parameters()


def test_all_names_that_overflow_are_listed_whenever_they_come():
    long = [f"{'very ' * length}long" for length in (8, 9, 30)]
    method = tiny_method(Prompts)
    with pytest.raises(UserError) as caught:
        method.set_classes(["jump", *long])
    assert f"too long: {', '.join(long[1:])};" not in str(caught.value)
    assert f"too long: {', '.join(long)};" in str(caught.value)
    assert method.classes == CLASSES
    method.set_classes(["jump", f"{'very ' * 6}long"])


def test_without_weights_all_problems_are_reported_at_once():
    with torch.device("meta"), pytest.raises(UserError) as caught:
        Prompts(
            create("toy", weights=None), Config(text_tokens=28, text_depth=12, video_depth=5), ["riding a bike", "a"]
        )
    for said in (
        "text_depth=12 does not fit the text tower of toy, which has 4 layers; use 1 to 4, or 0 for all",
        "video_depth=5 does not fit the video tower",
        "too long: riding a bike;",
    ):
        assert said in str(caught.value)


def test_all_problems_of_the_settings_are_reported_at_once():
    with pytest.raises(UserError) as caught:
        Config(text_tokens=-1, video_depth=-2, template="none")
    for said in ("text_tokens=-1", "video_depth=-2", "template='none'"):
        assert said in str(caught.value)
    with pytest.raises(UserError, match="nothing would learn"):
        Config(text_tokens=0, video_tokens=0)


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(Prompts, Config(text_tokens=4, video_tokens=4)), 60, lr=2e-3)
    assert losses[-1] < 0.5 * losses[0]
