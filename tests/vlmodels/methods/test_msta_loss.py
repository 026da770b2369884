"""MSTA's consistency loss, class prompts and descriptions, choice by choice."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, DESCRIPTIONS, tiny_frames, tiny_method
from vlmodels.classifier import description_features
from vlmodels.errors import UserError
from vlmodels.methods.base import Output
from vlmodels.methods.msta import MSTA

Config = MSTA.Config


def test_consistency_is_the_hand_computed_mean_over_classes():
    method = tiny_method(MSTA, Config(alpha=2.0))
    method.set_classes(["a", "b"], {"spatial": {"a": ["x"], "b": ["y"]}, "temporal": {"a": ["x"], "b": ["y"]}})
    w = torch.nn.functional.normalize(torch.tensor([[3.0, 4.0] + 38 * [0.0], [0.0, 1.0] + 38 * [0.0]]), dim=1)
    spatial, temporal = torch.eye(40)[[0, 1]], torch.eye(40)[[1, 5]]
    for kind, features in (("spatial", spatial), ("temporal", temporal)):  # as if it had computed them
        method.cached(kind, (), lambda features=features: features)
    out = Output(torch.zeros(2, 2), w, w)
    # class a: 2 - 0.6 - 0.8; class b: 2 - 1 - 0
    terms = method.losses(out, torch.tensor([0, 1]))
    assert terms["consistency"].item() == pytest.approx(2.0 * (0.6 + 1.0) / 2)
    assert terms["ce"].item() == pytest.approx(math.log(2))


def test_consistency_is_zero_where_class_and_description_agree_and_ignores_doubled_classes():
    method = tiny_method(MSTA, Config(scale=0.005))
    labels = torch.tensor([0, 1])
    same = {kind: {name: [f"a video of {name.replace('_', ' ')}."] for name in CLASSES} for kind in DESCRIPTIONS}
    for adapter in (method.text_adapter, method.visual_adapter):
        for part in adapter.values():
            torch.nn.init.zeros_(part.up.weight)
    method.set_classes(CLASSES, same)
    loss = method.losses(method(tiny_frames()), labels)["consistency"]
    assert loss.item() == pytest.approx(0, abs=1e-5)
    method.set_classes(CLASSES, DESCRIPTIONS)
    once = method.losses(method(tiny_frames()), labels)["consistency"].item()
    twice = [f"{name} " for name in CLASSES]  # the same prompts and descriptions under other names
    doubled = {k: {n: v[n.strip()] for n in (*CLASSES, *twice)} for k, v in DESCRIPTIONS.items()}
    method.set_classes([*CLASSES, *twice], doubled)
    assert method.losses(method(tiny_frames()), labels)["consistency"].item() == pytest.approx(once, abs=1e-5)
    assert 0 < once < 4


def test_consistency_teaches_the_text_branch_only():
    method = tiny_method(MSTA)
    method.losses(method(tiny_frames()), torch.tensor([0, 1]))["consistency"].backward()
    for name, parameter in method.named_parameters():
        learns = name.startswith(("text_adapter", "shared_adapter"))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        ({}, ("spatial", "temporal")),
        ({"consistency": "spatial"}, ("spatial",)),
        ({"consistency": "temporal"}, ("temporal",)),
        ({"consistency": "none"}, ()),
        ({"alpha": 0.0}, ()),
        ({"branches": "video"}, ()),  # class features do not learn: the term would be a constant
        ({"branches": "text"}, ("spatial", "temporal")),
    ],
)
def test_only_the_descriptions_that_are_needed_are_asked_for(config, kinds):
    method = tiny_method(MSTA, Config(**config))
    assert method.description_kinds == kinds
    method.set_classes(CLASSES, {kind: DESCRIPTIONS[kind] for kind in kinds})
    terms = method.losses(method(tiny_frames()), torch.tensor([0, 1]))
    assert ("consistency" in terms) == bool(kinds)
    method.set_classes(CLASSES)
    out = method(tiny_frames())
    if kinds:
        with pytest.raises(UserError, match=f"trains on {kinds[0]} descriptions"):
            method.losses(out, torch.tensor([0, 1]))


def test_descriptions_are_normalised_before_they_are_averaged_and_counted_up_to_n():
    method = tiny_method(MSTA, Config(descriptions=2))
    backbone = method.backbone
    single = [
        torch.nn.functional.normalize(backbone.encode_text(backbone.tokenize([s]), hooked=False), dim=-1)
        for s in DESCRIPTIONS["spatial"][CLASSES[0]]
    ]
    expected = torch.nn.functional.normalize((single[0] + single[1]) / 2, dim=-1)
    assert torch.allclose(method.description_directions("spatial")[0], expected[0], atol=1e-5)
    two = {name: DESCRIPTIONS["spatial"][name][:2] for name in CLASSES}  # a longer feature must not weigh more
    mean = description_features(EveryOtherFeatureTenfold(backbone), two, CLASSES)
    assert torch.allclose(torch.nn.functional.normalize(mean, dim=-1)[0], expected[0], atol=1e-5)
    method.set_classes(CLASSES, {"spatial": {name: ["one sentence"] for name in CLASSES}})
    assert method.description_directions("spatial").shape == (3, 40)


class EveryOtherFeatureTenfold:
    """A backbone whose text features at even places are ten times as long."""

    def __init__(self, backbone):
        self.tokenize, self.logit_scale = backbone.tokenize, backbone.logit_scale
        self.encode = backbone.frozen_text

    def frozen_text(self, tokens):
        features = self.encode(tokens).clone()
        features[::2] *= 10
        return features


def test_missing_descriptions_are_all_named():
    method = tiny_method(MSTA)
    method.set_classes(CLASSES, {k: {CLASSES[0]: ["x"]} for k in DESCRIPTIONS})
    with pytest.raises(UserError, match="2 of 3 classes: drinking_tea, jump"):
        method.losses(method(tiny_frames()), torch.tensor([0, 1]))


def test_logits_are_scaled_cosines_of_the_prompt():
    method = tiny_method(MSTA, Config(template="someone is {}!")).eval()
    prompts = ["someone is riding a bike!", "someone is drinking tea!", "someone is jump!"]
    with torch.no_grad():
        out = method(tiny_frames())
        text = method.backbone.encode_text(method.backbone.tokenize(prompts))
        video = method.backbone.encode_video(tiny_frames()).clip
        cosines = torch.nn.functional.cosine_similarity(video[:, None], text[None], dim=-1)
    assert not method.backbone.model.logit_scale.requires_grad
    assert torch.allclose(out.logits, method.backbone.logit_scale * cosines, atol=1e-4)
