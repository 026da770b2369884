"""ViCLIP: the released checkpoint's names and shapes, CLIP as its start, and what a joint sequence does."""

from __future__ import annotations

import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from tests.helpers.tiny_clip import tiny_backbone, tiny_clip, tiny_frames
from vlmodels import viclip
from vlmodels.backbone import Backbone
from vlmodels.clip import create, names, tags
from vlmodels.errors import UserError
from vlmodels.layout import temporal_positions

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 77, "width": 16, "heads": 2, "layers": 1},
    "quick_gelu": True,
}


@pytest.fixture
def small(monkeypatch):
    """A ViCLIP that is quick to make, under the name ViCLIP-B-16; gives the state of a CLIP of its shape."""
    import open_clip.factory

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16-quickgelu", CONFIG)
    torch.manual_seed(0)
    return CLIP(**CONFIG).state_dict()


def released(state, frames=8, context=32):
    """A CLIP's tensors under the released checkpoint's names, with a trained temporal table."""
    named = {"temp": torch.tensor(0.01)}
    for name, value in state.items():
        if name.startswith("visual."):
            own = "vision_encoder." + name.removeprefix("visual.")
            named[own] = value[:, :, None] if name == "visual.conv1.weight" else value
        elif name != "logit_scale":
            named["text_encoder." + name] = value[:context] if name == "positional_embedding" else value
    named["vision_encoder.temporal_positional_embedding"] = torch.randn(1, frames, 32)
    return named


def test_shape_and_size_are_those_of_the_released_model():
    assert {"ViCLIP-B-16", "ViCLIP-L-14", "toy-viclip"} < set(names())
    assert "openai" in tags("ViCLIP-B-16")
    with torch.device("meta"):
        backbone = create("ViCLIP-B-16", weights=None)
    spec, state = backbone.spec, backbone.model.state_dict()
    assert (spec.joint, spec.context_length, spec.frames, spec.video_layers) == (True, 32, 8, 12)
    assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert len(state) == 303
    counts = {name: value.numel() for name, value in state.items()}
    assert sum(counts.values()) == 149_603_841
    assert sum(n for name, n in counts.items() if name.startswith("visual.")) == 86_198_784
    assert state["visual.temporal_positional_embedding"].shape == (1, 8, 768)
    video = torch.empty(1, 8, 3, 224, 224, device="meta")
    assert backbone.encode_video(video).hidden.shape == (1, 1569, 768)


def test_the_tokenizer_cuts_at_32_and_keeps_the_end_token(small):
    backbone = create("ViCLIP-B-16", weights=None)
    tokens = backbone.tokenize(["word " * 60, "short"])
    assert tokens.shape == (2, 32)
    assert tokens[0, -1] == 49407
    assert tokens[1, 2] == 49407


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_released_checkpoint_is_loaded(small, tmp_path, wrapped):
    state = released(small)
    path = tmp_path / "ViCLIP.pth"
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}} if wrapped else state, path)
    backbone = create("ViCLIP-B-16", weights=path)
    own = backbone.model.state_dict()
    assert backbone.logit_scale == pytest.approx(100)
    assert torch.equal(own[viclip.TEMPORAL_TABLE], state["vision_encoder.temporal_positional_embedding"])
    for name in ("visual.conv1.weight", "visual.proj", "transformer.resblocks.0.mlp.c_fc.weight"):
        assert torch.equal(own[name], small[name])
    assert torch.equal(own["positional_embedding"], small["positional_embedding"][:32])


def test_a_text_table_of_77_rows_is_cut_and_another_number_of_frames_is_kept(small, tmp_path):
    torch.save(released(small, frames=4, context=77), tmp_path / "w.pth")
    own = create("ViCLIP-B-16", weights=tmp_path / "w.pth", num_frames=4).model.state_dict()
    assert own["positional_embedding"].shape == (32, 16)
    assert own[viclip.TEMPORAL_TABLE].shape == (1, 4, 32)


def test_differences_are_named(small, tmp_path):
    state = released(small) | {"text_encoder.strange": torch.zeros(1)}
    del state["vision_encoder.ln_post.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth.*ViCLIP-B-16: missing visual\.ln_post\.bias; unexpected strange"):
        create("ViCLIP-B-16", weights=tmp_path / "w.pth")


def test_weights_of_a_clip_are_a_start_that_equals_it_on_one_frame(small, tmp_path):
    save_file(small, tmp_path / "clip.safetensors")
    backbone = create("ViCLIP-B-16", weights=tmp_path / "clip.safetensors")
    plain = CLIP(**CONFIG)
    plain.load_state_dict(small)
    frames = tiny_frames(3, 1, size=(16, 16))
    with torch.no_grad():
        assert torch.equal(backbone.encode_video(frames).clip, plain.eval().encode_image(frames[:, 0]))
        assert torch.equal(backbone.encode_video(frames).frame[:, 0], backbone.encode_video(frames).clip)
        tokens = backbone.tokenize(["a word", "three more words"])
        assert torch.allclose(backbone.encode_text(tokens), text_of(plain, tokens), atol=1e-6)


def text_of(plain, tokens):
    padded = torch.zeros(len(tokens), 77, dtype=tokens.dtype)
    padded[:, : tokens.shape[1]] = tokens
    return plain.encode_text(padded)


def test_one_class_token_attends_to_all_frames():
    """The sequence is patch-major and time-minor, with positions in space and in time added as published."""
    backbone, frames = tiny_backbone(joint=True), tiny_frames(2, 4)
    visual = backbone.model.visual
    with torch.no_grad():
        patches = visual.conv1(frames.flatten(0, 1)).flatten(2).transpose(1, 2).reshape(2, 4, 6, 64)
        x = torch.empty(2, 25, 64)
        x[:, 0] = visual.class_embedding + visual.positional_embedding[0]
        for patch in range(6):
            for time in range(4):
                place = visual.positional_embedding[1 + patch] + visual.temporal_positional_embedding[0, time]
                x[:, 1 + 4 * patch + time] = patches[:, time, patch] + place
        out = visual.transformer(visual.ln_pre(x))
        features = backbone.encode_video(frames)
        assert torch.allclose(features.hidden, out, atol=1e-5)
        assert torch.allclose(features.clip, visual.ln_post(out[:, 0]) @ visual.proj, atol=1e-5)
        assert torch.allclose(features.frame.mean(dim=1), features.clip, atol=1e-5)
        assert torch.allclose(features.tokens.patches[:, 2, 1, 0], features.hidden[:, 1 + 4 * 3 + 2])


def test_other_numbers_of_frames():
    table = torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 3)
    assert torch.equal(temporal_positions(table, 8), table[0])
    assert torch.equal(temporal_positions(table, 1), torch.full((1, 3), 3.5))
    assert torch.allclose(temporal_positions(table, 16)[1:-1, 0].diff(), torch.tensor(0.5))
    assert torch.allclose(temporal_positions(table, 4)[:, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))


def test_the_toys_share_their_weights():
    toy, joint = create("toy", weights="toy"), create("toy-viclip", weights="toy")
    assert joint.spec.joint
    assert joint.digest != toy.digest
    frames = torch.randn(1, 1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(joint.encode_video(frames).clip, toy.encode_video(frames).clip)


def test_a_clip_that_is_given_time_is_joint():
    backbone = Backbone(viclip.add_temporal_table(tiny_clip(), 4), SimpleTokenizer(context_length=20), name="tiny")
    assert backbone.spec.joint
    assert not backbone.model.visual.temporal_positional_embedding.any()


def test_a_viclip_saved_under_our_own_names_keeps_its_positions_in_time(small, tmp_path):
    backbone = create("ViCLIP-B-16", weights=None)
    torch.nn.init.normal_(backbone.model.visual.temporal_positional_embedding)
    save_file(backbone.model.state_dict(), tmp_path / "own.safetensors")
    again = create("ViCLIP-B-16", weights=tmp_path / "own.safetensors")
    assert again.digest == backbone.digest
    with pytest.warns(UserWarning, match="positions for 8 frames; for clips of 16 they are interpolated"):
        create("ViCLIP-B-16", weights=tmp_path / "own.safetensors", num_frames=16)
