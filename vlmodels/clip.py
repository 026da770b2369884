"""Backbones by name: open_clip's ViTs and ViCLIP with published or local weights, and the toy CLIP."""

from __future__ import annotations

import functools
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer

from vlmodels import viclip
from vlmodels.backbone import Backbone
from vlmodels.errors import UserError, nearest
from vlmodels.paths import absolute, is_file
from vlmodels.toy import TOY_WEIGHTS, build_toy_clip, toy_tokenizer
from vlmodels.weights import from_vificlip, is_vificlip, key_differences, read_shapes, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

TOY, TOY_VICLIP = "toy", "toy-viclip"
_HOW_TO_LIST = "python -m vlmodels --list shows all"
_WORD_EMBEDDINGS = "token_embedding.weight"
_LARGE = 1 << 30  # bytes


def names() -> list[str]:
    """Return the backbones that can be created: the toys, ViCLIP, and every open_clip model with plain towers."""
    plain = [n for n in open_clip.list_models() if not obstacles(open_clip.get_model_config(n))]
    return [TOY, TOY_VICLIP, *viclip.BASES, *plain]


def tags(name: str) -> list[str]:
    """Return the tags of a backbone's published weights; for ViCLIP, those of the CLIP that it can start from."""
    if name in (TOY, TOY_VICLIP):
        return [TOY]
    return list(list_pretrained_tags_by_model(viclip.BASES.get(name, name)))


def obstacles(config: Mapping[str, Any]) -> list[str]:
    """Return what this package cannot run in an open_clip model's configuration; empty if it can run all."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    found = {
        "its image tower comes from timm": "timm_model_name" in vision,
        "its image tower is a ResNet": isinstance(vision.get("layers"), list),
        "its image tower pools by attention": bool(vision.get("attentional_pool")),
        "its text tower or tokenizer comes from Hugging Face": "hf_model_name" in text or "hf_tokenizer_name" in text,
        "it is a captioner": "multimodal_cfg" in config,
    }
    return [what for what, present in found.items() if present]


def create(name: str, *, weights: str | Path | None, num_frames: int = 8) -> Backbone:
    """Create a frozen backbone.

    Args:
        name: an open_clip model name ("ViT-B/16" and "ViT-B-16" are the same), "ViCLIP-B-16", "ViCLIP-L-14", "toy"
            or "toy-viclip".
        weights: a pretrained tag ("openai"), a local file (safetensors, torch, OpenAI's archive, released ViCLIP or
            ViFi-CLIP checkpoints), or None for random weights, which needs no network; for the toys also "toy", the
            weights in this package. ViCLIP takes CLIP's weights too, and starts as that CLIP.
        num_frames: frames per clip, for methods that are built for a fixed number.

    Raises:
        UserError: the name or tag is unknown, the file is damaged or holds other weights, or the download fails.
    """
    check_weights(name, weights)
    name = name.replace("/", "-")
    recorded = _recorded(name, weights)
    if name in (TOY, TOY_VICLIP):
        toy = build_toy_clip(_toy_path(weights))
        if name == TOY_VICLIP:
            toy = viclip.add_temporal_table(toy)
        return Backbone(toy, toy_tokenizer(), name=name, weights=recorded, frames=num_frames)
    base = viclip.BASES.get(name, name)
    config = open_clip.get_model_config(base)
    if found := obstacles(config):
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(found)}; {_HOW_TO_LIST}")
    if weights is None:
        model: nn.Module = CLIP(**config) if name == base else viclip.build(config)
    elif get_pretrained_cfg(base, str(weights)):
        model = _create_published(base, str(weights), bool(config.get("quick_gelu")))
        if name != base:
            state = viclip.from_clip(model.state_dict())
            model = _load_state(viclip.build(config), state, str(weights), name)
    else:
        model = _from_file(Path(weights), name, base, config)
        _warn_of_interpolation(model, num_frames, str(weights))
    # open_clip's BPE tokenizer cuts at the context length and keeps the end token
    tokenizer = open_clip.get_tokenizer(base) if name == base else SimpleTokenizer(context_length=viclip.CONTEXT)
    return Backbone(model, tokenizer, name=name, weights=recorded, frames=num_frames)


def check_weights(name: str, weights: str | Path | None) -> None:
    """Raise UserError unless the weights are a file or a published tag; nothing is read or downloaded.

    Raises:
        UserError: the backbone is unknown, or the file or tag does not exist; the message lists the tags.
    """
    name = name.replace("/", "-")
    known_name = name in (TOY, TOY_VICLIP, *viclip.BASES) or open_clip.get_model_config(name) is not None
    if not known_name:
        raise UserError(f"unknown backbone '{name}'{nearest(name, names())}; {_HOW_TO_LIST}")
    known = tags(name)
    if weights is not None and str(weights) not in known and not is_file(weights):
        raise UserError(
            f"no weights '{weights}' for {name}: neither a file nor one of its pretrained tags"
            f"{nearest(str(weights), known)}, which are {', '.join(known) or 'none'}"
        )


def weight_file(name: str, weights: str | Path | None) -> Path | None:
    """Return the absolute path of weights that are a file; None for a tag, even if a file here is called like it."""
    if weights is None or str(weights) in tags(name.replace("/", "-")) or not is_file(weights):
        return None
    return absolute(weights)


def check_weight_file(name: str, weights: str | Path | None) -> None:
    """Raise UserError unless a weight file can be loaded into a backbone; published tags are not looked at.

    A file is read whole, but of a large safetensors file only names and shapes; a file that was fit is read once.

    Raises:
        UserError: as ``create``.
    """
    path = weight_file(name, weights)
    if path is not None:
        facts = path.stat()
        _check_file(name.replace("/", "-"), path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _check_file(name: str, path: Path, size: int, _changed: int) -> None:
    """Check a file of ``size`` bytes; the time of its last change makes it another one for the cache."""
    if name in (TOY, TOY_VICLIP):
        build_toy_clip(path)
        return
    base = viclip.BASES.get(name, name)
    config = open_clip.get_model_config(base)
    if obstacles(config) or (size > _LARGE and path.suffix != ".safetensors"):
        return
    state = read_shapes(path) if size > _LARGE else read_weights(path)[0]
    lacks_words = name == base and is_vificlip(state)  # they come from another file, or from the hub
    state, frames = _own_names(state, name, base)
    with torch.device("meta"):
        model = CLIP(**config) if name == base else viclip.build(config, frames)
    expected = model.state_dict()
    if lacks_words:
        del expected[_WORD_EMBEDDINGS]
    _refuse_differences(expected, state, str(path), name)


def _recorded(name: str, weights: str | Path | None) -> str:
    """Return a tag unchanged and a file's absolute path, with which an adapter finds its backbone from any folder."""
    return str(weight_file(name, weights) or weights or "")


def _toy_path(weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    return TOY_WEIGHTS if str(weights) == TOY else Path(weights)


def _create_published(name: str, tag: str, quick_gelu: bool) -> nn.Module:
    if get_pretrained_cfg(name, tag).get("quick_gelu") and not quick_gelu:
        _warn_of_gelu(f"the weights '{tag}'", name)
    muted = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the hub logs each retry; the error below has the reason
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            model: nn.Module = open_clip.create_model(name, pretrained=tag)
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("Last error: ")[2].strip().partition("\n")[0][:200]
        raise UserError(
            f"the weights '{tag}' of {name} are not on this machine and cannot be downloaded ({reason}); "
            "download them elsewhere and pass the file's path as the weights (HF_HUB_OFFLINE=1 avoids the retries)"
        ) from error
    finally:
        logging.disable(muted)
    return model


def _warn_of_gelu(weights: str, name: str) -> None:
    warnings.warn(
        f"{weights} were trained with QuickGELU, which {name} lacks: use '{name}-quickgelu'",
        stacklevel=4,
    )


def _from_file(path: Path, name: str, base: str, config: Mapping[str, Any]) -> nn.Module:
    state, from_openai = read_weights(path)
    quick_gelu = bool(config.get("quick_gelu"))
    if from_openai and not quick_gelu:
        _warn_of_gelu(f"OpenAI's weights ({path.name})", name)
    vificlip = name == base and is_vificlip(state)
    state, frames = _own_names(state, name, base)
    if vificlip:
        state[_WORD_EMBEDDINGS] = _word_embeddings(path, base, quick_gelu)
        return viclip.use_imagenet_statistics(_load_state(CLIP(**config), state, str(path), name))
    model = CLIP(**config) if name == base else viclip.build(config, frames)
    return _load_state(model, state, str(path), name)


def _own_names(state: dict[str, Tensor], name: str, base: str) -> tuple[dict[str, Tensor], int]:
    """Return a file's tensors by the names of our model, and the rows of its temporal table, if the model has one."""
    if name == base:
        return (from_vificlip(state) if is_vificlip(state) else state), 0
    state = viclip.from_released(state) if viclip.is_released(state) else viclip.from_clip(state)
    table = state.get(viclip.TEMPORAL_TABLE)
    return state, table.shape[1] if table is not None and table.ndim == 3 and table.shape[1] else viclip.FRAMES


def _word_embeddings(path: Path, base: str, quick_gelu: bool) -> Tensor:
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
        words: Tensor = _create_published(base, "openai", quick_gelu).state_dict()[_WORD_EMBEDDINGS]
    except UserError as error:
        raise UserError(
            f"{path} is a ViFi-CLIP checkpoint, without word embeddings; OpenAI's {base} has them, but cannot be "
            f"downloaded: put its file into the same folder as openai.pt or openai.safetensors ({error})"
        ) from error
    return words


def _warn_of_interpolation(model: nn.Module, frames: int, source: str) -> None:
    """Warn if clips have another number of frames than a released temporal table; a table of zeros fits any."""
    table = model.state_dict().get(viclip.TEMPORAL_TABLE)
    if table is not None and table.any() and table.shape[1] != frames:
        warnings.warn(
            f"{source} has positions for {table.shape[1]} frames; for clips of {frames} they are interpolated",
            stacklevel=3,
        )


def _load_state(model: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> nn.Module:
    _refuse_differences(model.state_dict(), state, source, name)
    model.load_state_dict(state)
    return model


def _refuse_differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, name: str) -> None:
    if problems := key_differences(expected, state):
        raise UserError(f"{source} does not hold the weights of {name}: {problems}")
