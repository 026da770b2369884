"""Weight files by the names of their publishers: equal features after a round trip, and strict all the same."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from open_clip.convert import convert_mobile_clip_state_dict
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file
from timm.models.eva import _convert_pe

from vlmodels.clip import check_weight_file, create
from vlmodels.errors import UserError
from vlmodels.weight_formats import to_open_clip

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2}
MODELS = {
    "tiny-pe": ("vit_pe_core_tiny_patch16_384", {"context_length": 8, "vocab_size": 50}, {}),
    "tiny-mobileclip": ("vit_base_mci_224", {"context_length": 8, "vocab_size": 50}, {}),
    "tiny-siglip": (
        "vit_base_patch16_siglip_224",
        {"context_length": 8, "vocab_size": 50, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        {"init_logit_bias": -10},
    ),
}
POOLS = {"tiny-pe": "map", "tiny-mobileclip": "token", "tiny-siglip": "map"}
EMBED = {"tiny-pe": 24, "tiny-mobileclip": 24, "tiny-siglip": 768}


@pytest.fixture(scope="module")
def models():
    """One model a format, with two blocks in its text tower; image towers have their published size."""
    made = {}
    for name, (timm_name, text, more) in MODELS.items():
        torch.manual_seed(0)
        config = {
            "embed_dim": EMBED[name],
            "vision_cfg": {
                "image_size": 384 if name == "tiny-pe" else 224,
                "timm_model_name": timm_name,
                "timm_pool": POOLS[name],
                "timm_proj": "none" if name == "tiny-siglip" else None,
            },
            "text_cfg": {"width": 768 if name == "tiny-siglip" else 32, "heads": 2, "layers": 2, **text},
            **more,
        }
        model = CustomTextCLIP(**config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter.ndim == 1 or "probe" in parameter_name or "latent" in parameter_name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            if name != "tiny-siglip":
                model.visual.trunk.head.bias.zero_()  # their projections have none
        made[name] = ({**config, "custom_text": True}, model)
    return made


@pytest.fixture(autouse=True)
def known(models, monkeypatch):
    import open_clip.factory

    for name, (config, _) in models.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)


def as_published(name, state):
    """The tensors by their publisher's names: the inverse of what is tested, written out anew."""
    return {"tiny-pe": _as_meta, "tiny-mobileclip": _as_apple, "tiny-siglip": _as_transformers}[name](state)


def _as_meta(state):
    found = {}
    trunk = {k.removeprefix("visual.trunk."): v for k, v in state.items() if k.startswith("visual.trunk.")}
    renames = [("blocks.", "transformer.resblocks."), ("norm1", "ln_1"), ("norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc")]
    renames += [("mlp.fc2", "mlp.c_proj"), ("attn.qkv.", "attn.in_proj_"), ("gamma_1", "ls_1.gamma")]
    renames += [("gamma_2", "ls_2.gamma"), ("norm_pre", "ln_pre"), ("patch_embed.proj", "conv1")]
    for key, value in trunk.items():
        if key.startswith("attn_pool.q."):
            kind = key.rpartition(".")[2]
            found[f"visual.attn_pool.attn.in_proj_{kind}"] = torch.cat([value, trunk[f"attn_pool.kv.{kind}"]])
        elif key == "head.weight":
            found["visual.proj"] = value.T.contiguous()
        elif key == "cls_token":
            found["visual.class_embedding"] = value[0, 0].clone()
        elif key == "pos_embed":
            found["visual.positional_embedding"] = value[0].clone()
        elif not key.startswith("attn_pool.kv.") and key != "head.bias":
            new = key
            for old, other in renames:
                new = new.replace(old, other)
            new = "ln_post" + new.removeprefix("norm") if new.startswith("norm.") else new
            new = new.replace("attn.proj", "attn.out_proj").replace("attn_pool.proj", "attn_pool.attn.out_proj")
            new = new.replace("attn_pool.norm", "attn_pool.layernorm").replace("attn_pool.latent", "attn_pool.probe")
            found[f"visual.{new}"] = value
    return found | {k.removeprefix("text."): v for k, v in state.items() if not k.startswith("visual.")}


def _as_apple(state):
    found = {"logit_scale": state["logit_scale"]}
    image = [("patch_embed.backbone.", "patch_emb."), (".conv.", ".block.conv."), (".bn.", ".block.norm.")]
    image += [("blocks.", "transformer."), ("norm1", "pre_norm_mha.0"), ("attn.qkv", "pre_norm_mha.1.qkv_proj")]
    image += [("attn.proj", "pre_norm_mha.1.out_proj"), ("norm2", "pre_norm_ffn.0"), ("mlp.fc1", "pre_norm_ffn.1")]
    image += [("mlp.fc2", "pre_norm_ffn.4")]
    text = [("transformer.resblocks.", "transformer."), ("ln_1", "pre_norm_mha.0"), ("ln_2", "pre_norm_ffn.0")]
    text += [("attn.in_proj_", "pre_norm_mha.1.qkv_proj."), ("attn.out_proj", "pre_norm_mha.1.out_proj")]
    text += [("mlp.c_fc", "pre_norm_ffn.1"), ("mlp.c_proj", "pre_norm_ffn.4"), ("ln_final", "final_layer_norm")]
    text += [("token_embedding", "embedding_layer"), ("text_projection", "projection_layer")]
    for key, value in state.items():
        if key.startswith("visual.trunk."):
            new = key.removeprefix("visual.trunk.")
            for old, other in image:
                new = new.replace(old, other)
            if new == "head.weight":
                found["image_encoder.model.classifier.proj"] = value.T.contiguous()
            elif new == "pos_embed":
                found["image_encoder.model.pos_embed.pos_embed.pos_embed"] = value[None].clone()
            elif new != "head.bias":
                new = "post_transformer_norm" + new.removeprefix("norm") if new.startswith("norm.") else new
                found[f"image_encoder.model.{new}"] = value
        elif key == "text.positional_embedding":
            found["text_encoder.positional_embedding.pos_embed.pos_embed"] = value[None, None].clone()
        elif key != "logit_scale":
            new = key.removeprefix("text.")
            for old, other in text:
                new = new.replace(old, other)
            found[f"text_encoder.{new}"] = value
    return found


def _as_transformers(state):
    """The names of a ``SiglipModel``; see also the test against that model itself."""
    found = {"logit_scale": state["logit_scale"].reshape(1), "logit_bias": state["logit_bias"].reshape(1)}
    image = [("attn_pool.latent", "head.probe"), ("attn_pool.proj", "head.attention.out_proj")]
    image += [("attn_pool.norm", "head.layernorm"), ("attn_pool.mlp", "head.mlp"), ("blocks.", "encoder.layers.")]
    image += [("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.proj", "self_attn.out_proj")]
    image += [("patch_embed.proj", "embeddings.patch_embedding"), ("pos_embed", "embeddings.position_embedding.weight")]
    text = [("transformer.resblocks.", "encoder.layers."), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")]
    text += [("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]
    text += [("ln_final", "final_layer_norm"), ("text_projection", "head")]
    text += [("token_embedding", "embeddings.token_embedding")]
    text += [("positional_embedding", "embeddings.position_embedding.weight")]
    for key, value in state.items():
        tower, renames, old = (
            ("vision_model", image, "visual.trunk.") if key.startswith("visual.") else ("text_model", text, "text.")
        )
        new = key.removeprefix(old)
        for before, after in renames:
            new = new.replace(before, after)
        new = "post_layernorm" + new.removeprefix("norm") if new.startswith("norm.") else new
        if "attn.qkv." in new or "attn.in_proj_" in new:
            head, kind = new.split("attn.qkv.") if "qkv" in new else new.split("attn.in_proj_")
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                found[f"{tower}.{head}self_attn.{part}_proj.{kind}"] = piece.clone()
        elif new.startswith("attn_pool.q."):
            kind = new.rpartition(".")[2]
            whole = torch.cat([value, state[f"visual.trunk.attn_pool.kv.{kind}"]])
            found[f"{tower}.head.attention.in_proj_{kind}"] = whole
        elif key not in ("logit_scale", "logit_bias") and not new.startswith("attn_pool.kv."):
            in_batch = new.endswith("position_embedding.weight") and value.ndim == 3
            found[f"{tower}.{new}"] = value[0].clone() if in_batch else value
    return found


def saved(state, path):
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_published_names_give_the_same_features(models, tmp_path, name):
    _, model = models[name]
    path = saved(as_published(name, model.state_dict()), tmp_path / "w.safetensors")
    check_weight_file(name, path)
    ours = create(name, weights=path, num_frames=2)
    assert {key: value.tolist() for key, value in ours.model.state_dict().items() if value.ndim == 0} == {
        key: value.tolist() for key, value in model.state_dict().items() if value.ndim == 0
    }
    size = ours.spec.image_size
    frames, tokens = torch.randn(1, 2, 3, *size), torch.randint(1, 49, (3, 8))
    with torch.no_grad():
        assert torch.equal(ours.encode_video(frames).frame[0], ours.model.encode_image(frames[0]))
        assert torch.equal(ours.model.encode_image(frames[0]), model.encode_image(frames[0]))
        assert torch.equal(ours.encode_text(tokens), model.encode_text(tokens))


@pytest.mark.parametrize("name", MODELS)
def test_open_clips_own_names_stay(models, tmp_path, name):
    _, model = models[name]
    ours = create(name, weights=saved(model.state_dict(), tmp_path / "w.safetensors"))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in ours.model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_a_file_that_lacks_a_tensor_or_has_one_more_is_refused(models, tmp_path, name):
    state = as_published(name, models[name][1].state_dict())
    parts = ("1.pre_norm_mha.1.qkv", "1.self_attn.k_", "resblocks.1")
    block = next(key for key in state if any(part in key for part in parts))
    lacking = {key: value for key, value in state.items() if key != block}
    with pytest.raises(UserError, match="missing"):
        check_weight_file(name, saved(lacking, tmp_path / "lacking.safetensors"))
    more = {**state, f"{block}_more": state[block]}
    with pytest.raises(UserError, match="unexpected"):
        check_weight_file(name, saved(more, tmp_path / "more.safetensors"))


@pytest.mark.parametrize(("name", "other"), [("tiny-pe", "tiny-siglip"), ("tiny-siglip", "tiny-mobileclip")])
def test_another_familys_file_is_refused_with_the_difference(models, tmp_path, name, other):
    path = saved(as_published(other, models[other][1].state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"does not hold the weights of {name}: missing .*unexpected"):
        check_weight_file(name, path)


def test_the_tables_are_timms_and_open_clips(models):
    """Of PE-Core and MobileCLIP: their own conversions give the same tensors."""
    state = as_published("tiny-pe", models["tiny-pe"][1].state_dict())
    theirs = {f"visual.trunk.{key}": value for key, value in _convert_pe(dict(state), None).items()}
    ours = {key: value for key, value in to_open_clip(state).items() if key.startswith("visual.")}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    model = models["tiny-mobileclip"][1]
    state = as_published("tiny-mobileclip", model.state_dict())
    theirs, ours = convert_mobile_clip_state_dict(model, dict(state), fastvit=False), to_open_clip(state)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_siglip_of_transformers_is_siglip_of_open_clip():
    """The tensors of ``transformers``' own model, in towers of open_clip and timm: the same features."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from timm.models.vision_transformer import VisionTransformer
    from transformers import SiglipConfig, SiglipModel, SiglipTextConfig, SiglipVisionConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    sizes |= {"hidden_act": "gelu", "attention_dropout": 0.0}
    text = SiglipTextConfig(
        **sizes, vocab_size=50, max_position_embeddings=8, projection_size=32, bos_token_id=1, eos_token_id=2
    )
    config = SiglipConfig(text_config=text, vision_config=SiglipVisionConfig(**sizes, image_size=32, patch_size=8))
    theirs = SiglipModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    wide = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
    ours = CustomTextCLIP(
        32,
        CLIPVisionCfg(image_size=32, patch_size=8, width=32, head_width=16, layers=1),
        CLIPTextCfg(**wide, no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs={"eps": 1e-6}),
        init_logit_bias=-10,
    )
    trunk = VisionTransformer(32, 8, class_token=False, global_pool="map", num_classes=0, mlp_ratio=4, **SIZES)
    ours.visual = torch.nn.Module()
    ours.visual.trunk = trunk
    ours.visual.forward = trunk.forward
    state = to_open_clip(theirs.state_dict())
    for name in ("logit_scale", "logit_bias"):
        state[name] = state[name].reshape(())
    ours.load_state_dict(state)
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(1, 49, (3, 8))
    with torch.no_grad():
        found = theirs(pixel_values=images, input_ids=tokens)
        for mine, other in (
            (ours.eval().encode_image(images), found.image_embeds),
            (ours.encode_text(tokens), found.text_embeds),
        ):
            assert torch.allclose(torch.nn.functional.normalize(mine, dim=-1), other, atol=1e-5)


@pytest.mark.parametrize(
    "names", [("vision_model.encoder.layers.0.x", "text_model.x"), ("visual.blocks.0.attn.q_proj.weight", "text.x")]
)
def test_formats_that_are_not_read_name_the_file_to_download(tmp_path, names):
    path = saved(dict.fromkeys(names, torch.zeros(2)), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"open_clip_model.safetensors.*timm/PE-Core-B-16"):
        check_weight_file("PE-Core-B-16", path)


def test_arrays_of_jax_name_the_file_to_download(tmp_path):
    np.savez(tmp_path / "w.npz", x=np.zeros(2))
    with pytest.raises(UserError, match=r"arrays.*open_clip_model.safetensors"):
        check_weight_file("ViT-B-16-SigLIP2", tmp_path / "w.npz")


def test_the_models_named_here_are_open_clips():
    assert {"PE-Core-B-16", "ViT-B-16-SigLIP2"} < set(open_clip.list_models())


def test_two_names_of_one_place_are_refused(models, tmp_path):
    _, model = models["tiny-pe"]
    state = as_published("tiny-pe", model.state_dict())
    state["visual.patch_embed.proj.weight"] = torch.zeros_like(state["visual.conv1.weight"])
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"visual\.trunk\.patch_embed\.proj\.weight \(twice\)"):
        create("tiny-pe", weights=tmp_path / "two.safetensors")
