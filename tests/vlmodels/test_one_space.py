"""Texts and videos of every method in one space, as search needs it, or the method says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_method
from vlmodels import methods
from vlmodels.predictor import Predictor

NEW = ("flying a kite", "tea", "opening a door")
NO_TEXTS = [("aim", {"head": "linear"}), ("st_adapter", {"head": "linear"}), ("omniclip", {"head": "linear"})]
VARIANTS = [
    *((name, {}) for name in methods.names()),
    *NO_TEXTS,
    ("omniclip", {"head": "text_fixed"}),
    ("m2clip", {"vc_input": "embed"}),
    ("m2clip", {"score_mode": "text", "vc": 0.0}),
    ("prompts", {"text_tokens": 0}),
    ("viltclip", {"variant": "text_only"}),
]
UNSEARCHABLE = [*NO_TEXTS, ("omniclip", {})]
every_variant = pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)


def predictor_of(name, settings, joint):
    cls = methods.get(name)
    return Predictor(disturb(tiny_method(cls, cls.Config(**settings), joint=joint), scale=0.2))


def clips(count=3):
    frames = np.random.default_rng(0).integers(0, 255, (count, 1, 4, 16, 24, 3), np.uint8)
    return list(frames)


@every_variant
@pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])
def test_features_of_scores_are_those_of_embed(name, settings, joint):
    predictor = predictor_of(name, settings, joint)
    assert np.allclose(predictor.score(clips()).features, predictor.embed(clips()), atol=1e-6)
    assert np.allclose(np.linalg.norm(predictor.embed(clips()), axis=1), 1, atol=1e-5)


@every_variant
@pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])
def test_a_text_scores_as_a_class_of_that_text_would(name, settings, joint):
    """For classes that no classifier was built for, the score is the cosine; else search is refused with a reason."""
    predictor = predictor_of(name, settings, joint)
    method = predictor.method
    refused = method.search_problems()
    assert bool(refused) == ((name, settings) in UNSEARCHABLE)
    assert all("method.head=" in reason for reason in refused)
    if refused:
        return
    predictor.set_labels(NEW)
    prompts = [method.class_prompt(label).removeprefix(method.caption_text("")) for label in NEW]
    cosines = torch.from_numpy(predictor.embed(clips()) @ predictor.embed_texts(prompts).T)
    scale = getattr(method, "_scale", method.backbone.logit_scale).detach()
    expected = torch.softmax(scale * cosines, dim=-1).numpy()
    assert np.allclose(predictor.score(clips()).probabilities, expected, atol=1e-4)


def test_video_specific_texts_have_no_one_feature():
    """Why omniclip's published head cannot be searched: the texts of its scores are not those of its captions."""
    method = predictor_of("omniclip", {}, False).method
    with torch.no_grad():
        out = method(torch.randn(2, 4, 3, 16, 24))
        fixed = method.encode_captions([method.class_prompt(label) for label in CLASSES])
    assert not torch.allclose(out.text[0], out.text[1], atol=1e-4)
    assert not torch.allclose(out.text[0], fixed, atol=1e-3)


@pytest.mark.parametrize("name", methods.names())
def test_texts_that_are_cut_are_known(name):
    method = methods.get(name)(tiny_backbone(), None, CLASSES)
    long = "a person opens a door and " * 5
    assert method.cut_captions(["tea", long]) == [long]
    if method.caption_text(""):
        room = 18 - method.config.text_tokens if name == "prompts" else 18 - method.config.tokens
        assert method.cut_captions(["tea " * room]) == []
        assert method.cut_captions(["tea " * (room + 1)]) != []
