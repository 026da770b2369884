from __future__ import annotations

from collections import Counter

import pytest
import torch

from pipelines.exporting import program
from pipelines.exporting.merge import merged_method, refuse_merged, write_merged
from tests.helpers.tiny_clip import CLASSES, disturb, tiny_frames, tiny_method
from vlmodels import methods
from vlmodels.clip import create
from vlmodels.errors import UserError

MERGEABLE = ("finetune", "lora", "zeroshot")


def operators(method):
    graph = program.capture(program.VideoProgram(method, "texts")).graph
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_function")


@torch.no_grad()
def logits(method, frames):
    return method.eval()(frames).logits


@pytest.mark.parametrize("joint", [False, True], ids=["clip", "viclip"])
def test_lora_in_both_towers_becomes_a_bare_backbone_that_scores_alike(joint):
    cls = methods.get("lora")
    method = disturb(tiny_method(cls, cls.Config(towers="both", rank=4, alpha=16.0), joint=joint))
    merged, plain = merged_method(method), tiny_method(methods.get("zeroshot"), joint=joint)
    frames = tiny_frames()
    assert merged.name == "zeroshot"
    assert torch.allclose(logits(merged, frames), logits(method, frames), atol=1e-5)
    assert not torch.allclose(logits(plain, frames), logits(method, frames), atol=0.1)
    assert operators(merged) == operators(plain)


@pytest.mark.parametrize("name", methods.names())
def test_all_others_say_that_they_cannot_be_merged(name):
    method = tiny_method(methods.get(name))
    if name in MERGEABLE:
        refuse_merged(method)
        return
    assert merged_method(method) is None
    with pytest.raises(UserError, match=f"--merged: {name}"):
        refuse_merged(method)


@pytest.mark.parametrize("backbone", ["toy", "toy-viclip"])
@pytest.mark.parametrize("name", ["lora", "zeroshot"])
def test_a_merged_file_is_a_weight_file(backbone, name, tmp_path):
    method = disturb(methods.get(name)(create(backbone, weights="toy", num_frames=4)))
    method.set_classes(CLASSES)
    write_merged(tmp_path / "merged.safetensors", method, {})
    again = methods.get("zeroshot")(create(backbone, weights=tmp_path / "merged.safetensors", num_frames=4))
    again.set_classes(CLASSES)
    frames = tiny_frames(2, 4, size=(48, 48))
    assert torch.allclose(logits(again, frames), logits(method, frames), atol=1e-5)


def test_a_toy_viclip_that_learned_positions_in_time_is_refused(tmp_path):
    method = disturb(methods.get("finetune")(create("toy-viclip", weights="toy", num_frames=4)))
    with pytest.raises(UserError, match="positions in time"):
        write_merged(tmp_path / "merged.safetensors", method, {})
    assert not list(tmp_path.iterdir())
