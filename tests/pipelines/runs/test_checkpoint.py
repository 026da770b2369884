"""Checkpoints: what is kept comes back, under the names that earlier versions wrote."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch

from pipelines.config.schema import OptimConfig
from pipelines.runs.checkpoint import Checkpoints, Outcome, TrainingState
from pipelines.training.optimizer import make_optimizer
from tests.helpers.pair_ranks import CPU, make_method
from tests.helpers.tiny_clip import disturb
from vlmodels.checkpoint import load_tensors

STATE = TrainingState().with_epoch(1, {"loss": 2.0}).with_best(40.0).with_epoch(2, {"loss": 1.0})


class FolderContext:
    """A worker's context that keeps copies in a folder."""

    world = 2
    host = "here"
    own_process = True
    first_on_host = True

    def __init__(self, folder, rank=0):
        self.rank = rank
        self.reported = []
        self.damaged = {}
        self._folder = folder / "kept"

    def device(self):
        return CPU

    def report(self, folder):
        self.reported.append(folder.name)
        if self.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(folder, self._folder)

    @contextlib.contextmanager
    def checkpoint(self):
        yield self._folder if self._folder.is_dir() else None


def trained():
    """A method and its optimizer after a step."""
    method = disturb(make_method("msta"))
    optimizer = make_optimizer(method, OptimConfig())
    for parameter in method.trainable_parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return method, optimizer


def same(some, others):
    return all(torch.equal(value, others[name]) for name, value in some.items())


@pytest.fixture
def kept(tmp_path):
    """The folder that a run of two epochs keeps, the first of which was the best."""
    method, optimizer = trained()
    context = FolderContext(tmp_path)
    with Checkpoints(context) as checkpoints:
        checkpoints.save_best(make_method("msta"))
        checkpoints.save(STATE, method, optimizer)
    assert len(context.reported) == 1
    return tmp_path / "kept"


def test_the_format_on_disk(kept):
    assert {path.name for path in kept.iterdir()} == {
        "state.json",
        "adapter.safetensors",
        "optimizer.pt",
        "best.safetensors",
    }
    assert json.loads((kept / "state.json").read_text()) == {
        "epoch": 2,
        "history": [{"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.0}],
        "best": [40.0, 1],
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_restores_what_was_kept(kept, rank):
    method, optimizer = trained()
    fresh = make_method("msta")
    restored = make_optimizer(fresh, OptimConfig())
    with Checkpoints(FolderContext(kept.parent, rank)) as checkpoints:
        assert not checkpoints.finished()
        assert checkpoints.restore(fresh, restored, CPU) == STATE
        assert same(fresh.adapter_state_dict(), method.adapter_state_dict())
        for one, other in zip(restored.state.values(), optimizer.state.values(), strict=True):
            assert same(one, other)
        checkpoints.load_best(fresh)
        assert same(fresh.adapter_state_dict(), make_method("msta").adapter_state_dict())


def test_without_a_checkpoint_training_begins(tmp_path):
    method = make_method("msta")
    with Checkpoints(FolderContext(tmp_path)) as checkpoints:
        assert not checkpoints.finished()
        assert checkpoints.restore(method, make_optimizer(method, OptimConfig()), CPU) == TrainingState()


def test_the_finished_folder_is_recognised_and_read(tmp_path):
    outcome = Outcome({"base": {"top1": 50.0}}, STATE.history, 1, {"peak_memory_mb": 9.0})
    context = FolderContext(tmp_path)
    with Checkpoints(context) as checkpoints:
        checkpoints.write_model(make_method("msta"), ("a", "b"), {"base/target": np.array([1, 0])})
        checkpoints.write_outcome(outcome)
        checkpoints.keep_final()
        assert checkpoints.finished()
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == {"adapter.safetensors", "predictions.npz", "outcome.json"}
    assert set(json.loads((kept / "outcome.json").read_text())) == {
        "metrics",
        "history",
        "epoch_kept",
        "cost",
        "decision",
    }
    assert Outcome.read(kept).to_json() == json.loads(json.dumps(outcome.to_json()))
    assert load_tensors(kept / "adapter.safetensors")
    assert context.reported == ["final"]


def test_nothing_of_its_own_is_left(tmp_path):
    with Checkpoints(FolderContext(tmp_path)) as checkpoints:
        checkpoints.write_model(make_method("msta"), (), {})
    with pytest.raises(OSError, match="final"):
        checkpoints.write_model(make_method("msta"), (), {})
