from __future__ import annotations

import json

import open_clip
import pytest
import torch

from vlmodels import viclip
from vlmodels.catalogue import FAMILIES, entries, family, refused
from vlmodels.errors import UserError
from vlmodels.families import obstacles, view_towers
from vlmodels.weight_files import build


def kinds():
    """An open_clip model of each kind of towers: their numbers of layers and of pixels decide nothing."""
    found = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        if text.get("hf_model_name"):
            continue  # its configuration comes from the hub, and its package need not be installed
        text["layers"] = 1
        if not isinstance(vision.get("layers"), list):  # else a ResNet's four stages
            vision["layers"] = 1
        tower = str(vision.get("timm_model_name", "")).rpartition("_")[0] or vision
        kind = json.dumps([tower, {**text, "width": 0, "heads": 0}, vision.get("timm_pool")])
        found.setdefault(kind, (name, config))
    return found.values()


def towers(config, name):
    with torch.device("meta"):
        return view_towers(build(config), name)


def test_what_is_listed_is_what_building_says():
    """A model that can be adapted has views with the listed sizes; a refused one has none."""
    listed = entries()
    for name, config in kinds():
        if obstacles(config):
            with pytest.raises((UserError, TypeError)):  # TypeError: a captioner, which `build` does not know
                towers(config, name)
            continue
        video, text = towers(config, name)
        assert video.image_size == (listed[name].frame_size,) * 2
        assert text.context_length == listed[name].context


def test_the_frame_size_is_the_tower_s_where_the_configuration_has_another():
    config = open_clip.get_model_config("ViTamin-XL-384")
    assert config["vision_cfg"]["image_size"] == 256
    assert towers(config, "ViTamin-XL-384")[0].image_size == (entries()["ViTamin-XL-384"].frame_size,) * 2 == (384, 384)


def test_each_open_clip_model_is_listed_or_refused_with_a_reason():
    ours = {"toy", "toy-viclip", *viclip.BASES}
    assert not entries().keys() & refused().keys()
    assert (entries().keys() - ours) | refused().keys() == set(open_clip.list_models())
    assert all(refused().values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-16-quickgelu", "CLIP"),
        ("ViCLIP-L-14", "ViCLIP"),
        ("ViT-H-14-worldwide-378", "MetaCLIP 2"),
        ("ViT-bigG-14-CLIPA", "CLIPA"),
        ("ViT-SO400M-16-SigLIP-i18n-256", "SigLIP"),
        ("PE-Core-T-16-384", "PE-Core"),
        ("EVA01-g-14", "EVA"),
        ("MobileCLIP2-L-14", "MobileCLIP"),
        ("ViTamin-XL-384", "ViTamin"),
        ("nllb-clip-base-siglip", "Hugging Face text"),
        ("vit_medium_patch16_gap_256", "timm ViT"),
        ("toy-viclip", "toy"),
    ],
)
def test_families(name, expected):
    assert family(name) == expected


def test_every_family_has_a_backbone_and_a_description():
    assert {facts.family for facts in entries().values()} == set(FAMILIES)
