from __future__ import annotations

import sys
import types

import pytest
import torch
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_clip import tiny_clip
from vlmodels import clip
from vlmodels.clip import check_weight_file, create, names, tags
from vlmodels.errors import UserError
from vlmodels.toy import TOY_WEIGHTS
from vlmodels.weights import read_shapes, read_weights

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 8, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def small(monkeypatch):
    """A model name whose weights are quick to make."""
    configs = {"small": CONFIG, "small-quickgelu": CONFIG | {"quick_gelu": True}}
    import open_clip.factory

    for name, config in configs.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    torch.manual_seed(0)
    return CLIP(**CONFIG).state_dict()


def test_names_are_the_models_that_can_be_run():
    assert {"toy", "ViT-B-16-quickgelu", "ViT-B-16-SigLIP2", "PE-Core-B-16", "ViT-H-14-CLIPA"} < set(names())
    assert not {"RN50", "convnext_base", "coca_ViT-B-32", "MobileCLIP2-S0"} & set(names())
    ours = {"toy", "toy-viclip", "ViCLIP-B-16", "ViCLIP-L-14"}
    assert len(set(names()) - ours) >= 108
    assert "openai" in tags("ViT-B-16-quickgelu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-16-quickgel", "did you mean 'ViT-B-16-quickgelu'.*--list"),
        ("RN50", "ResNet"),
        ("convnext_base", "ConvNeXt"),
        ("MobileCLIP2-S0", "FastViT"),
        ("coca_ViT-B-32", "captioner"),
    ],
)
def test_names_that_cannot_be_run_are_explained(name, said):
    with pytest.raises(UserError, match=said):
        create(name, weights=None)


def test_a_slash_is_a_dash():
    with torch.device("meta"):
        spec = create("ViT-B/16", weights=None, num_frames=16).spec
    assert (spec.name, spec.frames, spec.video_layers, spec.video_width, spec.video_heads) == (
        "ViT-B-16",
        16,
        12,
        768,
        12,
    )
    assert (spec.text_layers, spec.text_width, spec.text_heads, spec.context_length) == (12, 512, 8, 77)
    assert (spec.image_size, spec.patch, spec.grid, spec.embed_dim) == ((224, 224), (16, 16), (14, 14), 512)
    assert spec.mean == (0.48145466, 0.4578275, 0.40821073)


def test_an_unknown_tag_lists_the_known_ones():
    with pytest.raises(UserError, match=r"did you mean 'openai'.*openai, dfn2b"):
        create("ViT-B-16-quickgelu", weights="openay")


@pytest.mark.parametrize("name", ["toy", "ViT-B-16"])
def test_weights_with_a_name_that_no_file_can_have(name):
    with pytest.raises(UserError, match="neither a file nor"):
        clip.check_weights(name, "X" * 300)


def test_weights_that_cannot_be_fetched_name_the_remedy(monkeypatch):
    def offline(*_args, **_kwargs):
        raise RuntimeError("Failed to download weights for tag 'openai': no network")

    monkeypatch.setattr(clip.open_clip, "create_model", offline)
    with pytest.raises(UserError, match=r"'openai' of ViT-B-32-quickgelu.*no network.*pass the file's path"):
        create("ViT-B-32-quickgelu", weights="openai")
    with pytest.warns(UserWarning, match="use 'ViT-B-32-quickgelu'"), pytest.raises(UserError):
        create("ViT-B-32", weights="openai")


@pytest.mark.parametrize("kind", ["safetensors", "plain", "state_dict", "module", "half", "torchscript"])
def test_a_local_file_is_loaded_whatever_its_kind(small, tmp_path, kind):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(small, path)
    elif kind == "torchscript":  # as OpenAI publishes them: half precision, with three more numbers
        holder = torch.nn.Module()
        for name, value in small.items():
            owner = holder
            for part in name.split(".")[:-1]:
                if not hasattr(owner, part):
                    owner.add_module(part, torch.nn.Module())
                owner = getattr(owner, part)
            owner.register_buffer(name.rpartition(".")[2], value.half())
        for name in ("input_resolution", "context_length", "vocab_size"):
            holder.register_buffer(name, torch.tensor(1))
        torch.jit.save(torch.jit.script(holder), path)
    else:
        wrapped = {
            "plain": small,
            "half": {k: v.half() for k, v in small.items()},
            "state_dict": {"epoch": 3, "state_dict": small},
            "module": {"model": {f"module.{k}": v for k, v in small.items()}},
        }[kind]
        torch.save(wrapped, path)
    if kind == "torchscript":
        with pytest.warns(UserWarning, match="use 'small-quickgelu'"):
            loaded = create("small", weights=path)
    else:
        loaded = create("small", weights=str(path))
    tolerance = 1e-3 if kind in ("half", "torchscript") else 0
    for name, value in loaded.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, small[name], atol=tolerance, rtol=tolerance), name
    assert loaded.spec.weights == str(path.resolve())


def test_the_weights_of_another_model_are_one_clear_error(small, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(tiny_clip().state_dict(), path)
    with pytest.raises(UserError, match=r"other\.safetensors does not hold the weights of small: .*unexpected.*shapes"):
        create("small", weights=path)
    save_file({k: v for k, v in small.items() if k != "visual.proj"}, path)
    with pytest.raises(UserError, match=r"missing visual\.proj"):
        create("small", weights=path)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        (".pt", b"", "cannot be read as weights|not a weight file"),
        (".pt", b"<html>not found</html>", "cannot be read as weights|not a weight file"),
        (".safetensors", b"<html>not found</html>", "cannot be read as weights"),
        (".pt", Evil(), "holds more than tensors"),
        (".pt", {"x": 3}, "holds no named tensors"),
        (".pt", {}, "holds no named tensors"),
    ],
)
def test_files_that_hold_no_weights(tmp_path, capsys, suffix, content, said):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=said) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("backbone", ["toy", "toy-viclip", "small"])
@pytest.mark.parametrize("damage", ["html", "evil", "missing", "nan"])
def test_a_file_that_cannot_be_loaded_is_refused_without_loading_it_into_a_model(small, tmp_path, backbone, damage):
    path = tmp_path / ("w.pt" if damage == "evil" else "w.safetensors")
    if damage == "html":
        path.write_bytes(b"<html>not found</html>")
    elif damage == "evil":
        torch.save(Evil(), path)
    else:
        state, metadata = dict(small), None
        if backbone != "small":
            with safe_open(TOY_WEIGHTS, framework="pt") as file:
                state, metadata = load_file(TOY_WEIGHTS), file.metadata()
        if damage == "missing":
            del state["visual.proj"]
        else:
            state["visual.proj"][0, 0] = float("nan")
        save_file(state, path, metadata=metadata)
    with pytest.raises(UserError, match=str(path)) as loaded:
        create(backbone, weights=path)
    with pytest.raises(UserError) as checked:
        check_weight_file(backbone, path)
    assert str(checked.value).replace(str(path.resolve()), str(path)) == str(loaded.value)


def test_files_that_can_be_loaded_pass_the_check(small, tmp_path):
    check_weight_file("toy", "toy")
    check_weight_file("toy", TOY_WEIGHTS)
    check_weight_file("small", None)
    save_file(small, tmp_path / "w.safetensors")
    check_weight_file("small", tmp_path / "w.safetensors")
    shapes = read_shapes(tmp_path / "w.safetensors")
    assert {name: value.shape for name, value in shapes.items()} == {name: v.shape for name, v in small.items()}


def test_the_toy_takes_its_own_weights_or_none():
    assert create("toy", weights=None).spec.weights == ""
    spec = create("toy", weights="toy", num_frames=3).spec
    assert (spec.name, spec.weights, spec.frames) == ("toy", "toy", 3)
    with pytest.raises(UserError, match=r"no weights 'openai' for toy: .*which are toy"):
        create("toy", weights="openai")


def vificlip(state):
    """A CLIP's tensors under ViFi-CLIP's names: without word embeddings, with the texts of its classes."""
    held = {"module.prompt_learner.complete_text_embeddings": torch.zeros(3, 8, 16)}
    for name, value in state.items():
        if name.startswith("visual."):
            held["module.image_encoder." + name.removeprefix("visual.")] = value
        elif name == "logit_scale":
            held["module.logit_scale"] = value
        elif name != "token_embedding.weight":
            held["module.text_encoder." + name] = value
    return held


def saved_with_settings(monkeypatch, content, path):
    """Save as ViFi-CLIP does: with a settings object whose class is not installed here."""
    module = types.ModuleType("yacs.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config", "__qualname__": "CfgNode"})
    settings = module.CfgNode(LR=1.0, DATA=module.CfgNode(ROOT="x"))
    settings.frozen = True
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        here.setitem(sys.modules, "yacs.config", module)
        torch.save({**content, "config": settings, "epoch": 10}, path)


def test_a_fine_tuned_vificlip_is_loaded_with_openais_word_embeddings(small, tmp_path, monkeypatch):
    saved_with_settings(monkeypatch, {"model": vificlip(small)}, tmp_path / "vificlip.pth")
    fetched = CLIP(**CONFIG)
    monkeypatch.setattr(clip.open_clip, "create_model", lambda *_args, **_kwargs: fetched)
    found = create("small", weights=tmp_path / "vificlip.pth")
    state = found.model.state_dict()
    assert torch.equal(state["token_embedding.weight"], fetched.token_embedding.weight)
    assert all(torch.equal(state[name], small[name]) for name in small if name != "token_embedding.weight")
    assert found.spec.mean == (0.485, 0.456, 0.406)
    save_file({**small, "token_embedding.weight": torch.ones_like(small["token_embedding.weight"])},
              tmp_path / "openai.safetensors")  # fmt: skip
    assert (create("small", weights=tmp_path / "vificlip.pth").model.token_embedding.weight == 1).all()


def test_a_vificlip_that_cannot_be_completed_says_what_is_missing(small, tmp_path, monkeypatch):
    def offline(*_args, **_kwargs):
        raise RuntimeError("no network")

    monkeypatch.setattr(clip.open_clip, "create_model", offline)
    torch.save({"model": vificlip(small)}, tmp_path / "vificlip.pth")
    with pytest.raises(UserError, match=r"without word embeddings.*same folder as openai\.pt"):
        create("small", weights=tmp_path / "vificlip.pth")
    torch.save({"model": vificlip(small) | {"module.prompt_learner.ctx": torch.zeros(3, 16)}}, tmp_path / "prompts.pth")
    with pytest.raises(UserError, match="holds learned prompts"):
        create("small", weights=tmp_path / "prompts.pth")
