"""Backbones by name: open_clip's models and ViCLIP with published or local weights, and the toy CLIP."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import SimpleTokenizer

from vlmodels import viclip
from vlmodels.backbone import Backbone
from vlmodels.errors import UserError, nearest
from vlmodels.families import obstacles
from vlmodels.hub import files_in
from vlmodels.paths import absolute, is_file
from vlmodels.picture_statistics import OWN, set_published_statistics, set_statistics
from vlmodels.published_weights import create_published, warn_of_gelu
from vlmodels.tokenizers import Tokenizer, hub_name, tokenizer_of
from vlmodels.toy import TOY_WEIGHTS, build_toy_clip, toy_tokenizer
from vlmodels.weight_files import build, check_file, load_file, load_state

if TYPE_CHECKING:
    from torch import nn

TOY, TOY_VICLIP = "toy", "toy-viclip"
_HOW_TO_LIST = "python -m vlmodels --list shows all"


def names() -> list[str]:
    """Return the backbones that can be created: the toys, ViCLIP, and every open_clip model of a known family."""
    plain = [n for n in open_clip.list_models() if not obstacles(open_clip.get_model_config(n))]
    return [TOY, TOY_VICLIP, *viclip.BASES, *plain]


def tags(name: str) -> list[str]:
    """Return the tags of a backbone's published weights; for ViCLIP, those of the CLIP that it can start from."""
    if name in (TOY, TOY_VICLIP):
        return [TOY]
    return list(list_pretrained_tags_by_model(viclip.BASES.get(name, name)))


def create(
    name: str,
    *,
    weights: str | Path | None,
    num_frames: int = 8,
    statistics: str = OWN,
    tokenizer: Tokenizer | None = None,
    beside: Path | None = None,
) -> Backbone:
    """Create a frozen backbone.

    Args:
        name: an open_clip model name ("ViT-B/16" and "ViT-B-16" are the same), "ViCLIP-B-16", "ViCLIP-L-14", "toy"
            or "toy-viclip".
        weights: a pretrained tag ("openai"), a local file (safetensors, torch, OpenAI's archive, released ViCLIP or
            ViFi-CLIP checkpoints), or None for random weights, which needs no network; for the toys also "toy", the
            weights in this package. ViCLIP takes CLIP's weights too, and starts as that CLIP.
        num_frames: frames per clip, for methods that are built for a fixed number.
        statistics: mean and deviation of the frames' colours: "own", with which the weights were trained, or
            "openai", "imagenet" or "inception".
        tokenizer: instead of the model's own, where texts are only counted.
        beside: folder with the files of a Hugging Face tokenizer or text tower; by default the weight file's. What is
            not there comes from the hub.

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
        set_statistics(toy, statistics)
        return Backbone(toy, toy_tokenizer(), name=name, weights=recorded, frames=num_frames, statistics=statistics)
    base = viclip.BASES.get(name, name)
    config = open_clip.get_model_config(base)
    if found := obstacles(config):
        raise UserError(f"backbone '{name}' cannot be adapted: {'; '.join(found)}; {_HOW_TO_LIST}")
    folder, from_file = beside, False
    if weights is None:
        model: nn.Module = build(config, beside) if name == base else viclip.build(config)
    elif get_pretrained_cfg(base, str(weights)):
        model = create_published(base, str(weights))
        if name != base:
            model = load_state(viclip.build(config), viclip.from_clip(model.state_dict()), str(weights), name)
    else:
        path, from_file = Path(weights), True
        folder = beside or path.parent
        model = load_file(path, name, base, folder, warn_of_gelu=lambda what: warn_of_gelu(what, base))
        _warn_of_interpolation(model, num_frames, str(weights))
    if name == base and not hasattr(model.visual, "preprocess_cfg"):
        set_published_statistics(model, base, str(weights) if from_file and statistics == OWN else "")
    set_statistics(model, statistics)
    if tokenizer is None:
        # open_clip's BPE tokenizer cuts at the context length and keeps the end token
        own = name == base
        tokenizer = (
            tokenizer_of(config, folder, _words(model)) if own else SimpleTokenizer(context_length=viclip.CONTEXT)
        )
    return Backbone(model, tokenizer, name=name, weights=recorded, frames=num_frames, statistics=statistics)


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


def needed_by(name: str) -> tuple[str, ...]:
    """Return the packages of other towers and tokenizers than open_clip's own that a backbone needs."""
    config = open_clip.get_model_config(viclip.BASES.get(name, name)) or {"vision_cfg": {}, "text_cfg": {}}
    timm = ("timm",) if config["vision_cfg"].get("timm_model_name") else ()
    of_hugging_face = {"hf_tokenizer_name", "hf_model_name"} & config["text_cfg"].keys()
    return (*timm, *(("transformers", "sentencepiece") if of_hugging_face else ()))


def weight_file(name: str, weights: str | Path | None) -> Path | None:
    """Return the absolute path of weights that are a file; None for a tag, even if a file here is called like it."""
    if weights is None or str(weights) in tags(name.replace("/", "-")) or not is_file(weights):
        return None
    return absolute(weights)


def files_beside(name: str, weights: str | Path | None) -> tuple[Path, ...]:
    """Return the files of a Hugging Face tokenizer and text tower beside a weight file; none for other backbones."""
    path = weight_file(name, weights)
    return files_in(path.parent) if path is not None and hub_name(name.replace("/", "-")) else ()


def check_weight_file(name: str, weights: str | Path | None) -> None:
    """Raise UserError unless a weight file can be loaded into a backbone; published tags are not looked at.

    A file is read whole, but of a large safetensors file only names and shapes; a file that was fit is read once.

    Raises:
        UserError: as ``create``.
    """
    path, name = weight_file(name, weights), name.replace("/", "-")
    if path is None:
        return
    if name in (TOY, TOY_VICLIP):
        build_toy_clip(path)
    elif not obstacles(open_clip.get_model_config(viclip.BASES.get(name, name))):
        check_file(name, viclip.BASES.get(name, name), path)


def _recorded(name: str, weights: str | Path | None) -> str:
    """Return a tag unchanged and a file's absolute path, with which an adapter finds its backbone from any folder."""
    return str(weight_file(name, weights) or weights or "")


def _words(model: nn.Module) -> int:
    """Return the number of words that a text tower knows."""
    text: Any = getattr(model, "text", model)
    table = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    return int(table.num_embeddings)


def _toy_path(weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    return TOY_WEIGHTS if str(weights) == TOY else Path(weights)


def _warn_of_interpolation(model: nn.Module, frames: int, source: str) -> None:
    """Warn if clips have another number of frames than a released temporal table; a table of zeros fits any."""
    table = model.state_dict().get(viclip.TEMPORAL_TABLE)
    if table is not None and table.any() and table.shape[1] != frames:
        warnings.warn(
            f"{source} has positions for {table.shape[1]} frames; for clips of {frames} they are interpolated",
            stacklevel=3,
        )
