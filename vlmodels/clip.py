"""Backbones by name: any open_clip ViT or ViCLIP with its published or local weights, or the toy CLIP."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
from open_clip.model import CLIP
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer

from vlmodels import viclip
from vlmodels.backbone import Backbone
from vlmodels.errors import UserError, nearest
from vlmodels.toy import TOY_WEIGHTS, build_toy_clip, toy_tokenizer
from vlmodels.weights import from_vificlip, is_vificlip, key_differences, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

TOY, TOY_VICLIP = "toy", "toy-viclip"
_HOW_TO_LIST = "python -m vlmodels --list shows all"
_WORDS = "token_embedding.weight"


def names() -> list[str]:
    """Backbones that can be created: the toys, ViCLIP, and every open_clip model with plain towers."""
    plain = [n for n in open_clip.list_models() if not obstacles(open_clip.get_model_config(n))]
    return [TOY, TOY_VICLIP, *viclip.BASES, *plain]


def tags(name: str) -> list[str]:
    """Published weights of a backbone; for ViCLIP, those of the CLIP that it can start from."""
    if name in (TOY, TOY_VICLIP):
        return [TOY]
    return list(list_pretrained_tags_by_model(viclip.BASES.get(name, name)))


def obstacles(config: Mapping[str, Any]) -> list[str]:
    """What in an open_clip model's configuration this package cannot run; empty if it can."""
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
        num_frames: frames per clip that methods with a fixed number are built for.

    Raises:
        UserError: unknown name or tag, unreadable or foreign file, weights that cannot be fetched.
    """
    check_weights(name, weights)
    name = name.replace("/", "-")
    recorded = _recorded(weights)
    if name in (TOY, TOY_VICLIP):
        path = None if weights is None else TOY_WEIGHTS if str(weights) == TOY else Path(weights)
        toy = build_toy_clip(path) if name == TOY else viclip.add_time(build_toy_clip(path))
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
            model = _filled(viclip.build(config), viclip.from_clip(model.state_dict()), str(weights), name)
    else:
        model = _from_file(Path(weights), name, base, config)
        _tell_of_times(model, num_frames, str(weights))
    # open_clip's BPE tokenizer cuts at the context length and keeps the end token
    tokenizer = open_clip.get_tokenizer(base) if name == base else SimpleTokenizer(context_length=viclip.CONTEXT)
    return Backbone(model, tokenizer, name=name, weights=recorded, frames=num_frames)


def check_weights(name: str, weights: str | Path | None) -> None:
    """Refuse weights that are neither a file nor a published tag, without reading or fetching any.

    Raises:
        UserError: unknown backbone; no such file or tag, with the tags that there are.
    """
    name = name.replace("/", "-")
    known_name = name in (TOY, TOY_VICLIP, *viclip.BASES) or open_clip.get_model_config(name) is not None
    if not known_name:
        raise UserError(f"unknown backbone '{name}'{nearest(name, names())}; {_HOW_TO_LIST}")
    known = tags(name)
    if weights is not None and str(weights) not in known and not Path(weights).is_file():
        raise UserError(
            f"no weights '{weights}' for {name}: neither a file nor one of its pretrained tags"
            f"{nearest(str(weights), known)}, which are {', '.join(known) or 'none'}"
        )


def _recorded(weights: str | Path | None) -> str:
    """A tag as it is, a file by its absolute path: an adapter must find its backbone from any folder."""
    return "" if weights is None else str(Path(weights).resolve() if Path(weights).is_file() else weights)


def _create_published(name: str, tag: str, quick_gelu: bool) -> nn.Module:
    if get_pretrained_cfg(name, tag).get("quick_gelu") and not quick_gelu:
        _warn_of_gelu(f"the weights '{tag}'", name)
    muted = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the hub logs each retry; what matters is in the error below
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="QuickGELU mismatch")
            model: nn.Module = open_clip.create_model(name, pretrained=tag)
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition("Last error: ")[2].strip().partition("\n")[0][:200]
        raise UserError(
            f"the weights '{tag}' of {name} are not on this machine and cannot be fetched ({reason}); "
            "fetch them elsewhere and pass the file's path as the weights (HF_HUB_OFFLINE=1 spares the retries)"
        ) from error
    finally:
        logging.disable(muted)
    return model


def _warn_of_gelu(what: str, name: str) -> None:
    better = f"{name}-quickgelu"
    warnings.warn(f"{what} were trained with QuickGELU, which {name} lacks: use '{better}'", stacklevel=4)


def _from_file(path: Path, name: str, base: str, config: Mapping[str, Any]) -> nn.Module:
    state, from_openai = read_weights(path)
    quick_gelu = bool(config.get("quick_gelu"))
    if from_openai and not quick_gelu:
        _warn_of_gelu(f"OpenAI's weights ({path.name})", name)
    if name == base:
        if is_vificlip(state):
            state = from_vificlip(state)
            state[_WORDS] = _word_embeddings(path, base, quick_gelu)
            return viclip.with_imagenet(_filled(CLIP(**config), state, str(path), name))
        return _filled(CLIP(**config), state, str(path), name)
    released = viclip.is_released(state)
    state = viclip.from_released(state) if released else viclip.from_clip(state)
    table = state.get(viclip.TABLE)
    frames = table.shape[1] if table is not None and table.ndim == 3 else viclip.FRAMES
    return _filled(viclip.build(config, frames), state, str(path), name)


def _word_embeddings(path: Path, base: str, quick_gelu: bool) -> Tensor:
    """OpenAI's, which ViFi-CLIP left frozen and out of its files: from ``openai.*`` beside the file, or fetched."""
    beside = next((p for p in sorted(path.parent.glob("openai.*")) if p != path), None)
    if beside is not None:
        held, _ = read_weights(beside)
        if _WORDS not in held:
            raise UserError(f"{beside} holds no {_WORDS}; put OpenAI's weights of {base} there")
        return held[_WORDS]
    try:
        words: Tensor = _create_published(base, "openai", quick_gelu).state_dict()[_WORDS]
    except UserError as error:
        raise UserError(
            f"{path} is a ViFi-CLIP checkpoint, without word embeddings; OpenAI's {base} has them and cannot be "
            f"fetched: put its file beside as openai.pt or openai.safetensors ({error})"
        ) from error
    return words


def _tell_of_times(model: nn.Module, frames: int, source: str) -> None:
    """Warn where a released temporal table does not fit the clips as it is; one of zeros always does."""
    table = model.state_dict().get(viclip.TABLE)
    if table is not None and table.any() and table.shape[1] != frames:
        warnings.warn(
            f"{source} has positions for {table.shape[1]} frames; for clips of {frames} they are interpolated",
            stacklevel=3,
        )


def _filled(model: nn.Module, state: Mapping[str, Tensor], source: str, name: str) -> nn.Module:
    if problems := key_differences(model.state_dict(), state):
        raise UserError(f"{source} does not hold the weights of {name}: {problems}")
    model.load_state_dict(state)
    return model
