"""Local weight files of backbones: which format they have, their tensors by open_clip's names, and strict loading."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict

from vlmodels import viclip
from vlmodels.errors import UserError
from vlmodels.hub import CONFIG, has_config, hub_folder
from vlmodels.published_weights import create_published
from vlmodels.weight_formats import hint, to_open_clip
from vlmodels.weights import from_vificlip, is_vificlip, key_differences, read_shapes, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

_WORD_EMBEDDINGS = "token_embedding.weight"
_LARGE = 1 << 30  # bytes


def build(config: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """Build a random model of an open_clip configuration, without a download of weights.

    Args:
        config: as open_clip's ``get_model_config`` returns it.
        folder: where a Hugging Face text tower's ``config.json`` may lie, else it comes from the hub.

    Raises:
        UserError: a Hugging Face configuration is not on this machine and cannot be downloaded.
    """
    own = {name: value for name, value in config.items() if name != "custom_text"}
    from_hub = config["text_cfg"].get("hf_model_name")
    if not from_hub:
        plain: nn.Module = CustomTextCLIP(**own) if config.get("custom_text") else CLIP(**own)
        return plain
    source = folder if folder is not None and has_config(folder) else hub_folder(str(from_hub), has_config)
    text = {**own["text_cfg"], "hf_model_name": str(source), "hf_model_pretrained": False}
    try:
        model: nn.Module = CustomTextCLIP(**{**own, "text_cfg": text})
    except ImportError as error:
        raise UserError(
            f"the text tower of {from_hub} needs transformers: pip install transformers ({error})"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"the configuration of the text tower in {source} cannot be read ({reason}); put the {CONFIG} of "
            f"{from_hub} there"
        ) from error
    return model


def load_file(path: Path, name: str, base: str, folder: Path, *, warn_of_gelu: Callable[[str], None]) -> nn.Module:
    """Return the model of a weight file.

    Args:
        path: the file.
        name: of the backbone.
        base: the open_clip model that it has the shape of; differs from ``name`` for ViCLIP.
        folder: as in ``build``.
        warn_of_gelu: called with the file's name if it is OpenAI's archive, whose activation is QuickGELU.

    Raises:
        UserError: the file is damaged, or holds other weights; the message lists the differences.
    """
    config = open_clip.get_model_config(base)
    state, from_openai = read_weights(path)
    if from_openai:
        warn_of_gelu(f"OpenAI's weights ({path.name})")
    vificlip = name == base and is_vificlip(state)
    state, frames = own_names(state, name, base)
    if vificlip:
        state[_WORD_EMBEDDINGS] = _word_embeddings(path, base)
        return viclip.use_imagenet_statistics(load_state(CLIP(**config), state, str(path), name))
    model = build(config, folder) if name == base else viclip.build(config, frames)
    return load_state(model, state, str(path), name)


def check_file(name: str, base: str, path: Path) -> None:
    """Raise UserError unless a weight file can be loaded; a file that was fit is read once.

    Of a large safetensors file only names and shapes are read; large files of other kinds are not looked at.

    Raises:
        UserError: as ``load_file``.
    """
    facts = path.stat()
    _check_file(name, base, path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _check_file(name: str, base: str, path: Path, size: int, _changed: int) -> None:
    """Check a file of ``size`` bytes; the time of its last change makes it another one for the cache."""
    config = open_clip.get_model_config(base)
    if size > _LARGE and path.suffix != ".safetensors":
        return
    state = read_shapes(path) if size > _LARGE else read_weights(path)[0]
    lacks_words = name == base and is_vificlip(state)  # they come from another file, or from the hub
    state, frames = own_names(state, name, base)
    with torch.device("meta"):
        model = build(config, path.parent) if name == base else viclip.build(config, frames)
    expected = model.state_dict()
    if lacks_words:
        del expected[_WORD_EMBEDDINGS]
    _refuse_differences(expected, _with_scalars(expected, state), str(path), name)


def own_names(state: dict[str, Tensor], name: str, base: str) -> tuple[dict[str, Tensor], int]:
    """Return a file's tensors by the names of our model, and the rows of its temporal table, if the model has one."""
    if name != base:
        state = viclip.from_released(state) if viclip.is_released(state) else viclip.from_clip(state)
        table = state.get(viclip.TEMPORAL_TABLE)
        return state, table.shape[1] if table is not None and table.ndim == 3 and table.shape[1] else viclip.FRAMES
    if is_vificlip(state):
        return from_vificlip(state), 0
    config, state = open_clip.get_model_config(base), to_open_clip(state)
    if config.get("custom_text") or "hf_model_name" in config["text_cfg"]:
        state = dict(convert_to_custom_text_state_dict(state))  # the text tower of older files has no name of its own
        state.pop("text.transformer.embeddings.position_ids", None)  # a buffer of older transformers
    return state, 0


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> nn.Module:
    """Load tensors into a model, strictly.

    Raises:
        UserError: names, shapes or kinds of numbers differ; the message lists the differences.
    """
    expected = model.state_dict()
    state = _with_scalars(expected, state)
    _refuse_differences(expected, state, source, name)
    model.load_state_dict(state)
    return model


def _with_scalars(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a file's tensors with scale and bias as numbers; some files hold them as vectors of one."""
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in expected and scalar in state and expected[scalar].numel() == state[scalar].numel() == 1:
            state = {**state, scalar: state[scalar].reshape(expected[scalar].shape)}
    return state


def _refuse_differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, name: str) -> None:
    if problems := key_differences(expected, state):
        raise UserError(f"{source} does not hold the weights of {name}: {problems}{hint(state, name)}")


def _word_embeddings(path: Path, base: str) -> Tensor:
    """Return OpenAI's word embeddings, from ``openai.*`` in the same folder or from the hub.

    ViFi-CLIP freezes them and leaves them out of its files.
    """
    local = next((p for p in sorted(path.parent.glob("openai.*")) if p != path), None)
    if local is not None:
        state, _ = read_weights(local)
        if _WORD_EMBEDDINGS not in state:
            raise UserError(f"{local} holds no {_WORD_EMBEDDINGS}; put OpenAI's weights of {base} there")
        return state[_WORD_EMBEDDINGS]
    try:
        words: Tensor = create_published(base, "openai").state_dict()[_WORD_EMBEDDINGS]
    except UserError as error:
        raise UserError(
            f"{path} is a ViFi-CLIP checkpoint, without word embeddings; OpenAI's {base} has them, but cannot be "
            f"downloaded: put its file into the same folder as openai.pt or openai.safetensors ({error})"
        ) from error
    return words
