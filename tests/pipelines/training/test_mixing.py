"""Soft targets: smoothed first, then mixed by the weight that the frames were mixed by."""

from __future__ import annotations

import statistics

import pytest
import torch

from pipelines.config.schema import AugmentConfig
from pipelines.training.mixing import Mixing, smoothed

LABELS = torch.tensor([2, 0, 3])
FRAMES = torch.randn(3, 4, 3, 16, 20, generator=torch.Generator().manual_seed(0))
C = 5


def weight(targets):
    """The share of the first clip in itself, read from targets that were not smoothed."""
    return float(targets[0, LABELS[0]])


def test_nothing_on_changes_nothing():
    frames, labels = Mixing(AugmentConfig(), 0.0, C)(FRAMES, LABELS, 1)
    assert frames is FRAMES
    assert labels is LABELS


def test_smoothing_alone_keeps_the_frames():
    mixing = Mixing(AugmentConfig(), 0.1, C)
    frames, targets = mixing(FRAMES, LABELS, 1)
    assert frames is FRAMES
    assert not mixing.needs_pairs
    expected = torch.full((3, C), 0.1 / 5)
    expected[torch.arange(3), LABELS] = 1 - 0.1 + 0.1 / 5
    torch.testing.assert_close(targets, expected)
    torch.testing.assert_close(targets.sum(-1), torch.ones(3))


def test_mixup_mixes_frames_and_smoothed_targets_by_one_weight():
    sharp = Mixing(AugmentConfig(mixup=0.8), 0.0, C)(FRAMES, LABELS, 7)[1]
    frames, targets = Mixing(AugmentConfig(mixup=0.8), 0.1, C)(FRAMES, LABELS, 7)
    lam = weight(sharp)
    assert 0.01 < lam < 0.99
    assert type(frames) is torch.Tensor
    torch.testing.assert_close(frames, lam * FRAMES + (1 - lam) * FRAMES.roll(1, 0))
    soft = smoothed(LABELS, C, 0.1)
    torch.testing.assert_close(targets, lam * soft + (1 - lam) * soft.roll(1, 0))
    torch.testing.assert_close(targets.sum(-1), torch.ones(3))


def test_cutmix_takes_one_box_of_all_frames_and_weighs_by_its_area():
    weights = []
    for seed in range(20):
        frames, targets = Mixing(AugmentConfig(cutmix=1.0), 0.0, C)(FRAMES, LABELS, seed)
        foreign = (frames != FRAMES).all(dim=2)
        assert torch.equal(foreign, foreign[:1, :1].expand_as(foreign))  # (B, T, h, w)
        box = foreign[0, 0]
        assert int(box.sum()) == int(box.any(0).sum()) * int(box.any(1).sum())  # a rectangle
        assert torch.equal(frames, torch.where(foreign[:, :, None], FRAMES.roll(1, 0), FRAMES))
        weights.append(weight(targets))
        assert weights[-1] == pytest.approx(1 - float(box.float().mean()), abs=1e-6)
    assert max(weights) - min(weights) > 0.5


def test_weight_follows_its_beta_distribution():
    drawn = [weight(Mixing(AugmentConfig(mixup=0.1), 0.0, C)(FRAMES[..., :1, :1], LABELS, s)[1]) for s in range(400)]
    assert statistics.mean(drawn) == pytest.approx(0.5, abs=0.08)
    assert statistics.pvariance(drawn) == pytest.approx(1 / (4 * 1.2), abs=0.03)  # 1/(4(2a+1)); 1/12 if uniform


def test_with_both_on_one_is_drawn_evenly():
    mixing = Mixing(AugmentConfig(mixup=0.8, cutmix=1.0), 0.1, C)
    boxes = 0
    for seed in range(300):
        frames, _ = mixing(FRAMES[:, :1], LABELS, seed)
        boxes += bool(((frames == FRAMES[:, :1]) | (frames == FRAMES[:, :1].roll(1, 0))).all())
    assert boxes / 300 == pytest.approx(0.5, abs=0.1)


def test_draws_follow_the_seed_and_leave_the_generator_alone():
    mixing = Mixing(AugmentConfig(mixup=0.8, cutmix=1.0), 0.0, C)
    state = torch.get_rng_state()
    first, again, other = (mixing(FRAMES, LABELS, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
