"""The published schedules, and which parameters decay and at what rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipelines.config.schema import OptimConfig
from pipelines.training.optimizer import learning_rate, make_optimizer, parameter_groups, set_rate


class FakeMethod(nn.Module):
    """What the optimizer asks of a method: parameters by name and the parts of another rate."""

    name = "fake"

    def __init__(self, factors=()):
        super().__init__()
        self.frozen = nn.Linear(2, 2).requires_grad_(requires_grad=False)
        self.down = nn.Linear(2, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(3)
        self.scale = nn.Parameter(torch.ones(()))
        self.factors = factors

    def learning_rate_factors(self):
        return [(getattr(self, name), factor) for name, factor in self.factors]


def names_by_group(method, **settings):
    names = {parameter: name for name, parameter in method.named_parameters()}
    groups = parameter_groups(method, OptimConfig(weight_decay=0.01, **settings))
    return [(g["factor"], g["weight_decay"], [names[p] for p in g["params"]]) for g in groups]


def test_learning_rate_is_the_logged_schedule():
    optim = OptimConfig(lr=1e-3, epochs=50, warmup_epochs=5)
    steps = 20
    assert learning_rate(0, optim, steps) == 0
    assert learning_rate(50, optim, steps) == pytest.approx(0.5e-3)
    assert learning_rate(100, optim, steps) == pytest.approx(0.976e-3, rel=1e-3)  # SPEC-msta section 4
    assert learning_rate(1000, optim, steps) == pytest.approx(1e-5)
    short = OptimConfig(lr=1.0, epochs=11, warmup_epochs=5)
    assert learning_rate(5 * steps, short, steps) == pytest.approx(0.575, abs=0.005)


def test_restarted_cosine_begins_where_the_warm_up_ends():
    optim = OptimConfig(lr=2.0, epochs=12, warmup_epochs=2, min_lr_ratio=0, schedule="restarted")  # M2-CLIP, K400
    steps = 10
    assert learning_rate(10, optim, steps) == pytest.approx(1.0)
    assert learning_rate(20, optim, steps) == pytest.approx(2.0)
    for step in range(20, 120):
        e = step / steps
        assert learning_rate(step, optim, steps) == pytest.approx(1 + math.cos(math.pi * (e - 2) / (12 - 2)))
    assert learning_rate(120, optim, steps) == pytest.approx(0, abs=1e-12)


def test_everything_decays_in_one_group_by_default():
    ((factor, decay, names),) = names_by_group(FakeMethod())
    assert (factor, decay) == (1.0, 0.01)
    assert names == [n for n, p in FakeMethod().named_parameters() if p.requires_grad]


def test_biases_are_spared():
    (_, decay, decayed), (_, none, spared) = names_by_group(FakeMethod(), no_decay="biases")
    assert (decay, none) == (0.01, 0.0)
    assert spared == ["down.bias", "attention.in_proj_bias", "attention.out_proj.bias", "norm.bias"]
    assert {"norm.weight", "scale", "down.weight"} <= set(decayed)


def test_vectors_are_spared():
    groups = names_by_group(FakeMethod(), no_decay="vectors")
    assert {decay: sorted(names) for _, decay, names in groups} == {
        0.01: ["attention.in_proj_weight", "attention.out_proj.weight", "down.weight"],
        0.0: sorted(
            [
                "scale",
                "down.bias",
                "attention.in_proj_bias",
                "attention.out_proj.bias",
                "norm.weight",
                "norm.bias",
            ]
        ),
    }


def test_parts_train_at_their_own_rate():
    method = FakeMethod(factors=[("attention", 0.5), ("frozen", 3.0)])
    groups = names_by_group(method, no_decay="biases")
    assert groups == names_by_group(FakeMethod(factors=[("attention", 0.5), ("frozen", 3.0)]), no_decay="biases")
    assert {(factor, decay) for factor, decay, _ in groups} == {(1, 0.01), (1, 0), (0.5, 0.01), (0.5, 0)}
    assert all(("attention" in name) == (factor == 0.5) for factor, _, names in groups for name in names)
    optimizer = make_optimizer(method, OptimConfig(no_decay="biases"))
    set_rate(optimizer, 0.2)
    assert {g["factor"]: g["lr"] for g in optimizer.param_groups} == {1.0: 0.2, 0.5: 0.1}


def test_decay_and_rate_act_on_their_own_parameters_only():
    method = FakeMethod(factors=[("norm", 0.5)])
    optimizer = make_optimizer(method, OptimConfig(no_decay="biases", weight_decay=0.1))
    set_rate(optimizer, 1.0)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    for p in method.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    shrink = {"down.weight": 0.9, "norm.weight": 0.95, "down.bias": 1.0, "norm.bias": 1.0, "frozen.weight": 1.0}
    for name, factor in shrink.items():
        torch.testing.assert_close(method.get_parameter(name).detach(), factor * before[name])


def test_parts_that_overlap_are_refused():
    with pytest.raises(ValueError, match=r"fake: parts .* overlap"):
        parameter_groups(FakeMethod(factors=[("norm", 0.5), ("norm", 0.5)]), OptimConfig())
