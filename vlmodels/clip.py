"""Backbones by name: any open_clip ViT with its published or local weights, or the toy CLIP."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
from open_clip.model import CLIP
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from vlmodels.backbone import Backbone
from vlmodels.errors import UserError, nearest
from vlmodels.toy import TOY_WEIGHTS, build_toy_clip, toy_tokenizer
from vlmodels.weights import key_differences, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

TOY = "toy"
_HOW_TO_LIST = "python -m vlmodels --list shows all"


def names() -> list[str]:
    """Backbones that can be created: the toy CLIP and every open_clip model with plain towers."""
    return [TOY, *(n for n in open_clip.list_models() if not obstacles(open_clip.get_model_config(n)))]


def tags(name: str) -> list[str]:
    """Published weights of a backbone."""
    return [TOY] if name == TOY else list(list_pretrained_tags_by_model(name))


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
        name: an open_clip model name ("ViT-B/16" and "ViT-B-16" are the same) or "toy".
        weights: a pretrained tag ("openai"), a local file (safetensors, torch, OpenAI's archive), or None for
            random weights, which needs no network; for "toy" also "toy", the weights in this package.
        num_frames: frames per clip that methods with a fixed number are built for.

    Raises:
        UserError: unknown name or tag, unreadable or foreign file, weights that cannot be fetched.
    """
    check_weights(name, weights)
    if name == TOY:
        return _create_toy(weights, num_frames)
    name = name.replace("/", "-")
    config = open_clip.get_model_config(name)
    if found := obstacles(config):
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(found)}; {_HOW_TO_LIST}")
    tokenizer = open_clip.get_tokenizer(name)
    if weights is None:
        model = CLIP(**config)
    elif get_pretrained_cfg(name, str(weights)):
        model = _create_published(name, str(weights), bool(config.get("quick_gelu")))
    else:
        model = CLIP(**config)
        _load_file(model, Path(weights), name, quick_gelu=bool(config.get("quick_gelu")))
    return Backbone(model, tokenizer, name=name, weights=_recorded(weights), frames=num_frames)


def check_weights(name: str, weights: str | Path | None) -> None:
    """Refuse weights that are neither a file nor a published tag, without reading or fetching any.

    Raises:
        UserError: unknown backbone; no such file or tag, with the tags that there are.
    """
    if name != TOY and open_clip.get_model_config(name.replace("/", "-")) is None:
        raise UserError(f"unknown backbone '{name}'{nearest(name, names())}; {_HOW_TO_LIST}")
    known = tags(name.replace("/", "-"))
    if weights is not None and str(weights) not in known and not Path(weights).is_file():
        raise UserError(
            f"no weights '{weights}' for {name}: neither a file nor one of its pretrained tags"
            f"{nearest(str(weights), known)}, which are {', '.join(known) or 'none'}"
        )


def _recorded(weights: str | Path | None) -> str:
    """A tag as it is, a file by its absolute path: an adapter must find its backbone from any folder."""
    return "" if weights is None else str(Path(weights).resolve() if Path(weights).is_file() else weights)


def _create_toy(weights: str | Path | None, num_frames: int) -> Backbone:
    path = None if weights is None else TOY_WEIGHTS if str(weights) == TOY else Path(weights)
    return Backbone(build_toy_clip(path), toy_tokenizer(), name=TOY, weights=_recorded(weights), frames=num_frames)


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


def _load_file(model: nn.Module, path: Path, name: str, *, quick_gelu: bool) -> None:
    state, from_openai = read_weights(path)
    if from_openai and not quick_gelu:
        _warn_of_gelu(f"OpenAI's weights ({path.name})", name)
    if problems := key_differences(model.state_dict(), state):
        raise UserError(f"{path} does not hold the weights of {name}: {problems}")
    model.load_state_dict(state)
