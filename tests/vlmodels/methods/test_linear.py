"""The linear probe, and how a classifier of fixed classes meets classes that it does not know."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_clip import CLASSES, disturb, tiny_backbone, tiny_frames, tiny_method, train
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.linear import Linear
from vlmodels.methods.zeroshot import ZeroShot


@pytest.mark.parametrize("backbone", ["ViT-B-16-quickgelu", "ViCLIP-B-16"])
def test_parameter_count(backbone):
    with torch.device("meta"):
        method = Linear(create(backbone, weights=None), classes=[str(i) for i in range(400)])
    assert sum(p.numel() for p in method.trainable_parameters()) == 768 * 400 + 400


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_the_feature_is_the_normed_class_token_averaged_over_frames(joint):
    method, bare = disturb(tiny_method(Linear, joint=joint)).eval(), tiny_backbone(joint=joint)
    hidden = bare.encode_video(tiny_frames(2, 4)).hidden[:, 0]
    pooled = bare.model.visual.ln_post(hidden).reshape(2, -1, 64).mean(dim=1)
    expected = pooled @ method.head.linear.weight.T + method.head.linear.bias
    found = method(tiny_frames(2, 4)).logits
    assert torch.allclose(found.softmax(-1), expected.softmax(-1), atol=1e-5)


@torch.no_grad()
def test_classes_it_was_not_trained_on_are_scored_by_their_texts():
    method, plain, frames = disturb(tiny_method(Linear)).eval(), tiny_method(ZeroShot).eval(), tiny_frames()
    for other in (method, plain):
        other.set_classes(["swim", "sneeze"])
    assert torch.equal(method(frames).logits, plain(frames).logits)


@torch.no_grad()
def test_texts_say_how_likely_its_classes_are_together_and_it_shares_that_out():
    method, plain, frames = disturb(tiny_method(Linear)).eval(), tiny_method(ZeroShot).eval(), tiny_frames()
    own = method(frames).logits.softmax(-1)
    names = [CLASSES[2], "swim", CLASSES[0], CLASSES[1]]
    for other in (method, plain):
        other.set_classes(names)
    found, texts = method(frames).logits.softmax(-1), plain(frames).logits.softmax(-1)
    assert torch.allclose(found[:, 1], texts[:, 1], atol=1e-6)
    assert torch.allclose(found[:, [2, 3, 0]], own * (1 - texts[:, 1:2]), atol=1e-6)


@torch.no_grad()
def test_some_of_its_classes_in_another_order():
    method, frames = disturb(tiny_method(Linear)).eval(), tiny_frames()
    own = method(frames).logits.softmax(-1)
    method.set_classes([CLASSES[2], CLASSES[0]])
    few = own[:, [2, 0]]
    assert torch.allclose(method(frames).logits.softmax(-1), few / few.sum(-1, keepdim=True), atol=1e-6)


def test_the_towers_keep_no_graph_and_text_is_encoded_once():
    method = tiny_method(Linear).train()
    model, graphs, runs = method.backbone.model, [], []
    for video, text in zip(model.visual.transformer.resblocks, model.transformer.resblocks, strict=True):
        video.register_forward_hook(lambda _m, _a, out: graphs.append(out.requires_grad))
        text.register_forward_hook(lambda _m, _a, _o: runs.append(1))
    for _ in range(2):
        assert method(tiny_frames()).logits.requires_grad
    assert graphs == [False] * 6
    assert len(runs) == 3


def test_built_for_no_classes_it_is_zero_shot_and_one_class_is_refused():
    method = Linear(tiny_backbone())
    method.set_classes(CLASSES)
    with torch.no_grad():
        assert torch.equal(method(tiny_frames()).logits, tiny_method(ZeroShot)(tiny_frames()).logits)
    assert not method.trainable_parameters()
    with pytest.raises(UserError, match="at least 2 class names, not 1"):
        Linear(tiny_backbone(), classes=["one"])


def test_learns_the_clips_that_it_sees():
    losses = train(tiny_method(Linear), 60, lr=3e-2)
    assert losses[-1] < 0.5 * losses[0]
