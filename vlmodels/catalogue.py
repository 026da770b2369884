"""The catalogue of backbones: the family and the sizes of each, and those that cannot be adapted; nothing is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import open_clip

from vlmodels import viclip
from vlmodels.clip import TOY, TOY_VICLIP, names, tags
from vlmodels.families import obstacles
from vlmodels.toy import TOY_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES: Mapping[str, str] = {
    "CLIP": "open_clip's own ViT, with OpenAI's, LAION's, DataComp's, DFN's and MetaCLIP's weights",
    "ViCLIP": "CLIP's towers, all frames of a clip in one sequence",
    "MetaCLIP 2": "CLIP's towers, multilingual texts",
    "CLIPA": "CLIP's image tower, pooled by the mean; texts that read both ways",
    "SigLIP": "SigLIP and SigLIP 2: no class token, pooled by a map; texts that read both ways",
    "PE-Core": "Meta's Perception Encoder: rotary positions, pooled by a map",
    "EVA": "EVA-CLIP and EVA02-CLIP: rotary positions in EVA02",
    "MobileCLIP": "MobileCLIP and MobileCLIP 2, those with a ViT; patches of a convolutional stem in size B",
    "ViTamin": "patches of a convolutional stem, no class token, pooled by the mean",
    "timm ViT": "another ViT of timm",
    "Hugging Face text": "a text tower of Hugging Face (RoBERTa, XLM-R, mT5, NLLB), run as a whole",
    "toy": "the toy CLIP of this package",
}
"""Families of backbones, each with what sets it apart. Methods see the views of ``vlmodels/families`` alone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A backbone in the catalogue: frame size in pixels, context in tokens, and the tags of its published weights."""

    family: str
    frame_size: int
    context: int
    weights: tuple[str, ...]


def entries() -> dict[str, Entry]:
    """Return the backbones that can be created, by name."""
    return {name: entry(name) for name in names()}


def refused() -> dict[str, str]:
    """Return the open_clip models that cannot be adapted, by name, each with the reason."""
    found = {name: obstacles(open_clip.get_model_config(name)) for name in open_clip.list_models()}
    return {name: "; ".join(reasons) for name, reasons in found.items() if reasons}


def entry(name: str) -> Entry:
    """Return a backbone's entry."""
    config = config_of(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    context = viclip.CONTEXT if name in viclip.BASES else int(text.get("context_length", 77))
    # open_clip's configuration of ViTamin-XL-384 has 256 pixels; timm builds what the tower's name says
    timm = str(vision.get("timm_model_name") or "")
    size = timm.rpartition("_")[2] or vision["image_size"]
    return Entry(family(name), int(size), context, tuple(tags(name)))


def config_of(name: str) -> Mapping[str, Any]:
    """Return a backbone's configuration, in the shape of open_clip's model_configs/*.json."""
    if name in (TOY, TOY_VICLIP):
        return TOY_CONFIG
    config: Mapping[str, Any] = open_clip.get_model_config(viclip.BASES.get(name, name))
    return config


def family(name: str) -> str:
    """Return the family of a backbone, one of ``FAMILIES``, by its configuration."""
    if name in (TOY, TOY_VICLIP):
        return "toy"
    config = config_of(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    timm = str(vision.get("timm_model_name") or "")
    kinds = {  # the first that holds
        "ViCLIP": name in viclip.BASES,
        "Hugging Face text": bool(text.get("hf_model_name")),
        "PE-Core": timm.startswith("vit_pe_core"),
        "EVA": timm.startswith("eva"),
        "MobileCLIP": name.startswith("MobileCLIP"),  # the L size has a plain ViT
        "ViTamin": timm.startswith("vitamin"),
        "SigLIP": "_siglip_" in timm,
        "timm ViT": bool(timm),
        "CLIPA": vision.get("pool_type") == "avg",
        "MetaCLIP 2": text.get("pool_type") == "eos",
    }
    return next((kind for kind, holds in kinds.items() if holds), "CLIP")
