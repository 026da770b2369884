"""The script behind the shipped weights: it runs, repeats itself exactly, and what it learns is saved."""

import dataclasses

import pytest
import torch

from pipelines.toyworld.pretrain import Recipe, pretrain
from vlmodels.toy import build_toy_clip, save_toy_clip

TINY = Recipe(stills=48, batch=12, vision_steps=2, text_steps=2, joint_steps=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny products: more threads only wait for each other, longest on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    return pretrain(TINY)


def test_same_seed_same_weights_other_seed_others(trained):
    model, ids = trained
    again, ids_again = pretrain(TINY)
    other, _ = pretrain(dataclasses.replace(TINY, seed=1))
    assert ids == ids_again
    for (name, value), same in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, same), name
    assert not torch.equal(model.visual.proj, other.visual.proj)


def test_trained_words_reach_the_weight_file(trained, tmp_path):
    model, ids = trained
    save_toy_clip(model, tmp_path / "w.safetensors", token_ids=ids, recipe=dataclasses.asdict(TINY))
    table = build_toy_clip(tmp_path / "w.safetensors").token_embedding.weight
    assert table.any(dim=1).nonzero().flatten().tolist() == ids
    assert torch.allclose(table[ids], model.token_embedding.weight[ids], atol=1e-3)
