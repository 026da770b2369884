"""Full, video-only and text-only fine-tuning."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.tiny_clip import CLASSES, tiny_backbone, tiny_frames, tiny_method, train
from tests.helpers.tiny_families import FAMILIES, tiny_family_backbone
from vlmodels.checkpoint import load_adapter, save_adapter
from vlmodels.clip import create
from vlmodels.methods.finetune import FineTune

Config = FineTune.Config


@pytest.mark.parametrize(
    ("backbone", "towers", "expected"),
    [
        ("ViCLIP-B-16", "both", 124_306_945),  # the published 124.3 M
        ("ViCLIP-B-16", "video", 86_198_784),
        ("ViCLIP-B-16", "text", 63_405_056 - 25_296_896),
        ("ViT-B-16-quickgelu", "both", 149_620_737 - 25_296_896),
        ("ViT-B-16-quickgelu", "video", 86_192_640),
    ],
)
def test_parameter_count(backbone, towers, expected):
    with torch.device("meta"):
        method = FineTune(create(backbone, weights=None), Config(towers=towers))
    assert sum(p.numel() for p in method.trainable_parameters()) == expected


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("towers", ["both", "video", "text"])
def test_what_trains(towers, custom_text):
    method = tiny_method(FineTune, Config(towers=towers), custom_text=custom_text)
    names = {name: p.requires_grad for name, p in method.backbone.model.named_parameters()}
    for name, trains in names.items():
        tower = "video" if name.startswith("visual.") else "text"
        if name == "logit_scale":
            assert trains == (towers == "both")
        else:
            assert trains == (towers in ("both", tower) and "token_embedding" not in name), name


@pytest.mark.parametrize(("towers", "texts_run"), [("both", 3), ("text", 3), ("video", 1)])
def test_a_frozen_tower_keeps_no_graph_and_frozen_text_is_encoded_once(towers, texts_run):
    method = tiny_method(FineTune, Config(towers=towers)).train()
    model, graphs, runs = method.backbone.model, [], []
    model.visual.transformer.resblocks[0].mlp.register_forward_hook(lambda _m, _a, out: graphs.append(out.grad_fn))
    model.transformer.resblocks[0].mlp.register_forward_hook(lambda _m, _a, _o: runs.append(1))
    for _ in range(3):
        assert method(tiny_frames()).logits.requires_grad
    assert len(runs) == texts_run
    assert [graph is not None for graph in graphs] == [towers != "text"] * 3


def test_the_adapter_holds_the_tower_that_trained_and_belongs_to_the_weights_before(tmp_path):
    method, fresh = tiny_method(FineTune, Config(towers="video")), tiny_backbone()
    train(method, 2)
    texts = fresh.tokenize(list(CLASSES))
    with torch.no_grad():
        assert torch.equal(method.backbone.encode_text(texts), fresh.encode_text(texts))
    assert all(name.startswith("backbone.model.visual.") for name in method.adapter_state_dict())
    assert method.backbone.digest == fresh.digest
    save_adapter(tmp_path, method, classes=CLASSES)
    again = load_adapter(tmp_path, fresh).method
    with torch.no_grad():
        assert torch.equal(again(tiny_frames()).logits, method.eval()(tiny_frames()).logits)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
def test_starts_as_the_backbone_but_for_rounding(joint):
    method, bare = tiny_method(FineTune, joint=joint), tiny_backbone(joint=joint)
    texts = bare.tokenize(list(CLASSES))
    assert torch.allclose(method.backbone.encode_text(texts), bare.encode_text(texts), atol=1e-5)
    assert torch.allclose(
        method.backbone.encode_video(tiny_frames()).clip, bare.encode_video(tiny_frames()).clip, atol=1e-5
    )


def test_presets_are_the_released_settings():
    found = {
        name: (p.method.towers, p.recipe.lr, p.recipe.epochs, p.recipe.batch_size, p.recipe.frames)
        for name, p in FineTune.presets.items()
    }
    assert found == {
        "b2n": ("both", 2e-6, 11, 64, 32),
        "fewshot": ("both", 2e-6, 50, 64, 32),
        "zeroshot": ("both", 8e-6, 10, 256, 32),
        "full": ("both", 2.2e-5, 30, 512, 16),
        "full_video": ("video", 8e-6, 30, 256, 16),
        "full_text": ("text", 8e-6, 30, 256, 16),
    }
    for preset in FineTune.presets.values():
        recipe = preset.recipe
        assert (recipe.mixup, recipe.cutmix, recipe.label_smoothing, recipe.crop) == (0.8, 1.0, 0.1, "multiscale")
        assert preset.method.template == "a photo of a {}."


@pytest.mark.parametrize("towers", ["both", "video", "text"])
def test_learns_the_clips_that_it_sees(towers):
    losses = train(tiny_method(FineTune, Config(towers=towers)), 30, lr=1e-3)
    assert losses[-1] < (0.98 if towers == "text" else 0.5) * losses[0]


@pytest.fixture
def group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_that_trains_gets_a_gradient_as_ddp_asks(family, group):
    """The bias of SigLIP's loss, which no softmax needs, stays frozen (mlfoundations/open_clip#1076)."""
    method = FineTune(tiny_family_backbone(family), Config()).train()
    method.set_classes(CLASSES)
    bias = method.backbone.model.logit_bias
    assert bias is None or not bias.requires_grad
    model = DistributedDataParallel(method)
    for _ in range(2):  # the second step finds out
        torch.nn.functional.cross_entropy(model(tiny_frames()).logits, torch.tensor([0, 1])).backward()
    assert not [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert bias is None or (bias == -10 and bias.grad is None)
