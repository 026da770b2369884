"""The schedule as published, exact resume, accumulation, and what may change."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional

from pipelines.config.schema import AugmentConfig, OptimConfig
from pipelines.training.errors import DivergedError
from pipelines.training.mixing import Mixing
from tests.helpers.pair_ranks import make_loop

PUBLISHED = AugmentConfig()
MIXED = AugmentConfig(mixup=0.8, cutmix=1.0, crop="multiscale")


def class_loop(optim, name="msta", augment=PUBLISHED, **settings):
    return make_loop(name, optim, augment, classes=4, mixing=Mixing(augment, optim.label_smoothing, 4), **settings)


def run(loop, start=0):
    history, states = [], []

    def on_epoch(epoch, metrics, optimizer):
        history.append(metrics)
        adapter = {k: v.clone() for k, v in loop.method.adapter_state_dict().items()}
        states.append((adapter, copy.deepcopy(optimizer.state_dict())))

    loop.run(on_epoch, start)
    return history, states


def test_only_the_adapter_changes_and_the_loss_falls():
    loop = class_loop(OptimConfig(lr=3e-3, epochs=4, warmup_epochs=0.5, batch_size=8))
    frozen = {k: v.clone() for k, v in loop.method.backbone.state_dict().items()}
    history, states = run(loop)
    assert history[-1]["loss"] < history[0]["loss"]
    for name, value in loop.method.backbone.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    assert any(not torch.equal(states[0][0][k], states[-1][0][k]) for k in states[0][0])


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1, "no_decay": "vectors", "micro_batch": 4}])
def test_resumed_equals_straight_through(settings):
    optim = OptimConfig(lr=3e-3, epochs=3, warmup_epochs=1, batch_size=8, **settings)
    augment = MIXED if settings else PUBLISHED
    history, states = run(class_loop(optim, augment=augment))
    resumed = class_loop(optim, augment=augment)
    adapter, optimizer = states[0]
    resumed.method.load_adapter_state_dict(adapter)
    resumed.optimizer.load_state_dict(optimizer)
    rest, _ = run(resumed, start=1)
    for straight, again in zip(history[1:], rest, strict=True):
        assert again["loss"] == straight["loss"]
        assert again["train_top1"] == straight["train_top1"]
    for name, value in resumed.method.adapter_state_dict().items():
        assert torch.equal(value, states[-1][0][name])


def test_accumulated_passes_equal_one_pass():
    whole, _ = run(class_loop(OptimConfig(lr=1e-3, epochs=2, warmup_epochs=0, batch_size=8)))
    parts, _ = run(class_loop(OptimConfig(lr=1e-3, epochs=2, warmup_epochs=0, batch_size=8, micro_batch=3)))
    for a, b in zip(whole, parts, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)


REGULARISED = [{"regularise": "froster"}, {"regularise": "taco", "taco_momentum": 0.9}]


@pytest.mark.parametrize("settings", REGULARISED, ids=lambda s: s["regularise"])
def test_a_regularised_run_resumes_exactly(settings):
    optim = OptimConfig(lr=3e-3, epochs=3, warmup_epochs=1, batch_size=8, micro_batch=4)
    history, states = run(class_loop(optim, augment=MIXED, **settings))
    resumed = class_loop(optim, augment=MIXED, **settings)
    adapter, optimizer = states[0]
    resumed.method.load_adapter_state_dict(adapter)
    resumed.optimizer.load_state_dict(optimizer)
    rest, ended = run(resumed, start=1)
    term = settings["regularise"]
    assert [epoch[term] for epoch in rest] == [epoch[term] for epoch in history[1:]]
    assert all(torch.equal(value, states[-1][0][name]) for name, value in ended[-1][0].items())
    assert history[0][term] > 0


@pytest.mark.parametrize("settings", REGULARISED, ids=lambda s: s["regularise"])
def test_accumulated_passes_of_a_regularised_step_equal_one_pass(settings):
    """TACO's anchors are those of the step, and its teacher moves once a step."""
    ended = []
    for micro_batch in (0, 4):
        optim = OptimConfig(lr=1e-3, epochs=2, warmup_epochs=0, batch_size=8, micro_batch=micro_batch)
        loop = class_loop(optim, **settings)
        history, _ = run(loop)
        ended.append((history, loop.method.adapter_state_dict()))
    (whole, one), (parts, two) = ended
    for a, b in zip(whole, parts, strict=True):
        assert b[settings["regularise"]] == pytest.approx(a[settings["regularise"]], rel=1e-3, abs=1e-6)
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
    assert one.keys() == two.keys()


@pytest.mark.parametrize(("shift", "expected"), [(0, 100), (1, 0)])
def test_train_top1_counts_against_the_largest_target(shift, expected):
    loop = class_loop(OptimConfig(lr=0.1, epochs=1, warmup_epochs=0, batch_size=8, label_smoothing=0.1))

    def truth(_method, args, output):
        return output._replace(logits=args[1].roll(shift, -1) + 0 * output.logits)

    loop.method.register_forward_hook(truth)
    history, _ = run(loop)
    assert history[0]["train_top1"] == expected


def test_the_loss_comes_from_the_mixed_clips_and_targets():
    optim = OptimConfig(lr=1e-12, epochs=1, warmup_epochs=0, batch_size=8, label_smoothing=0.1)
    loop = class_loop(optim, augment=MIXED)
    with torch.no_grad():
        expected = [functional.cross_entropy(loop.method(b.frames).logits, b.targets) for b in loop.batches.epoch(0)]
    history, _ = run(loop)
    assert history[0]["loss"] == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    plain, _ = run(class_loop(OptimConfig(lr=1e-12, epochs=1, warmup_epochs=0, batch_size=8), augment=MIXED))
    assert history[0]["loss"] != pytest.approx(plain[0]["loss"], rel=1e-3)


def test_bf16_stays_near_fp32():
    full, _ = run(class_loop(OptimConfig(lr=1e-3, epochs=1, warmup_epochs=0, batch_size=8)))
    half, _ = run(class_loop(OptimConfig(lr=1e-3, epochs=1, warmup_epochs=0, batch_size=8, precision="bf16")))
    assert half[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.05)


def test_a_loss_that_is_not_finite_stops_with_the_remedy():
    loop = class_loop(OptimConfig(lr=1e-3, epochs=2, warmup_epochs=0, batch_size=8))
    with torch.no_grad():
        loop.parameters[0].fill_(math.nan)
    with pytest.raises(DivergedError, match=r"epoch 1 .*lower optim\.lr"):
        run(loop)
