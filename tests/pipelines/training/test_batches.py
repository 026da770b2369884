"""What a step sees depends on seed, epoch and clip, never on how many workers there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.config.schema import AugmentConfig
from pipelines.training.augment import Augment
from pipelines.training.batches import TrainBatches, batch_problems
from pipelines.training.mixing import Mixing
from pipelines.training.parts import Parts
from tests.helpers.fakes import DenseStore, FakeStore
from vlmodels.errors import UserError

STORE = FakeStore()
PUBLISHED = AugmentConfig()


def batches(rank=0, world=1, batch=8, micro=0, seed=1, augment=PUBLISHED, mixing=None, store=STORE, parts=None):
    return TrainBatches(
        store,
        store.examples,
        Augment(augment, (48, 48), (0.5,) * 3, (0.5,) * 3),
        batch_size=batch,
        micro_batch=micro,
        rank=rank,
        world=world,
        seed=seed,
        device=torch.device("cpu"),
        mixing=mixing,
        parts=parts,
    )


def clips_by_step(parts):
    """Frames of each global step, sorted by content so that the order within a batch does not matter."""
    steps = []
    for step in zip(*parts, strict=True):
        frames = torch.cat([b.frames for b in step]).flatten(1)
        steps.append(frames[frames[:, 0].argsort()])
    return steps


def test_two_workers_see_what_one_sees():
    alone = clips_by_step([list(batches().epoch(3))])
    both = clips_by_step([list(batches(rank, 2).epoch(3)) for rank in range(2)])
    assert len(alone) == 3
    for a, b in zip(alone, both, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_two_workers_with_parts_of_their_own_see_what_one_sees():
    parts = Parts.cut(STORE, STORE.examples, 8, 3)
    alone = clips_by_step([list(batches(parts=parts).epoch(3))])
    both = clips_by_step([list(batches(rank, 2, parts=parts).epoch(3)) for rank in range(2)])
    assert len(alone) == 3
    for a, b in zip(alone, both, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(alone[0], clips_by_step([list(batches().epoch(3))])[0])


def test_epochs_differ_and_repeat_exactly():
    first, again, other = (next(iter(batches().epoch(e))).frames for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, next(iter(batches(seed=2).epoch(0))).frames)


@pytest.mark.parametrize(("world", "micro"), [(1, 0), (1, 3), (2, 1), (2, 2), (3, 1)])
def test_shares_make_the_global_mean(world, micro):
    parts = [list(batches(rank, world, micro=micro).epoch(0)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1, "ranks must make the same number of passes"
    total = sum(b.share for part in parts for b in part) / world
    assert total == pytest.approx(3)  # steps
    assert sum(b.last for b in parts[0]) == 3
    clips = sum(len(b.targets) for part in parts for b in part)
    assert clips == 24


def test_one_frame_of_every_segment_is_drawn():
    plain = AugmentConfig(crop_scale=1.0, flip=0, jitter=0, gray=0)
    for index in range(4):
        drawn = batches(augment=plain).draw_frames(index, epoch=0)
        pool = STORE.frames(f"clip{index}")
        for segment, frame in enumerate(drawn):
            assert any(np.array_equal(frame, candidate) for candidate in pool[3 * segment : 3 * segment + 3])


def test_batch_larger_than_data_is_refused():
    with pytest.raises(UserError, match=r"batch_size=25 is larger than the 24 training clips"):
        batches(batch=25)


def test_mixing_draws_anew_for_every_pass_and_rank_and_repeats_exactly():
    mixing = Mixing(AugmentConfig(mixup=0.8), 0.0, 4)
    runs = [list(batches(rank, 2, micro=2, mixing=mixing).epoch(1)) for rank in range(2)]
    weights = [round(float(b.targets.max()), 6) for part in runs for b in part]
    assert len(weights) == 12
    assert len(set(weights) - {1.0}) >= 8  # 1: a clip met one of its own class
    for b, again in zip(runs[1], batches(1, 2, micro=2, mixing=mixing).epoch(1), strict=True):
        assert torch.equal(b.frames, again.frames)
        assert torch.equal(b.targets, again.targets)
    other_epoch = [round(float(b.targets.max()), 6) for b in batches(0, 2, micro=2, mixing=mixing).epoch(2)]
    assert len(set(other_epoch) & set(weights) - {1.0}) == 0
    off = Mixing(AugmentConfig(), 0.0, 4)
    for b, plain in zip(batches(mixing=off).epoch(0), batches().epoch(0), strict=True):
        assert torch.equal(b.frames, plain.frames)
        assert torch.equal(b.targets, plain.targets)
        assert b.targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("batch", "micro", "world", "remedy"),
    [
        (8, 0, 1, None),
        (8, 3, 1, None),  # passes of 3, 3 and 2
        (8, 1, 1, "optim.micro_batch=2"),
        (5, 2, 1, "optim.micro_batch=3"),
        (5, 2, 2, "optim.micro_batch=3"),
        (4, 0, 4, "optim.batch_size to at least 8"),
        (7, 0, 4, "optim.batch_size to at least 8"),
        (1, 0, 1, "optim.batch_size to at least 2"),
    ],
)
def test_a_pass_of_one_clip_cannot_be_mixed(batch, micro, world, remedy):
    assert batch_problems(24, batch, micro, world, pairs=False) == []
    problems = batch_problems(24, batch, micro, world, pairs=True)
    if remedy is None:
        assert problems == []
        return
    assert len(problems) == 1
    assert remedy in problems[0]
    mixing = Mixing(AugmentConfig(cutmix=1.0), 0.0, 4)
    with pytest.raises(UserError, match="leaves a pass with one clip"):
        batches(0, world, batch=batch, micro=micro, mixing=mixing)
    number = int(remedy.rpartition(" ")[2].rpartition("=")[2])
    batch, micro = (batch, number) if "micro" in remedy else (number, micro)
    for rank in range(world):
        sizes = [len(b.targets) for b in batches(rank, world, batch=batch, micro=micro, mixing=mixing).epoch(0)]
        assert min(sizes) >= 2


def test_one_clip_a_worker_and_one_a_pass_are_reported_together():
    (problem,) = batch_problems(24, 4, 1, 4, pairs=True)
    assert "set optim.batch_size to at least 8 and optim.micro_batch=0, or" in problem
    assert batch_problems(24, 8, 0, 4, pairs=True) == []


def test_augmentation_is_drawn_once_per_clip():
    still = torch.from_numpy(np.repeat(STORE.frames("clip1")[:1], 4, axis=0))
    out = Augment(AugmentConfig(), (48, 48), (0.5,) * 3, (0.5,) * 3)(still, seed=5)
    assert out.shape == (4, 3, 48, 48)
    for frame in out[1:]:
        torch.testing.assert_close(frame, out[0], rtol=0, atol=0)


def test_training_draws_one_start_of_a_dense_clip():
    store = DenseStore([300, 250, 50, 113, 1], pool=4)
    drawn = batches(store=store, batch=1).draw_frames
    starts = {int(drawn(0, epoch)[0, 0, 0, 0]) for epoch in range(60)}
    assert starts == {0, 62, 93, 125, 187}  # thirds of the room of 187 frames, and its centre
    for epoch in range(5):
        for clip, room in ((0, 187), (1, 137), (3, 0)):
            shown = drawn(clip, epoch)[:, 0, 0, 0]
            assert (np.diff(shown) == 16).all()
            assert 0 <= shown[0] <= room
        assert drawn(2, epoch)[:, 0, 0, 0].tolist() == [0, 16, 32, 48, 48, 48, 48, 48]  # in tests 49 follows 48
        assert drawn(4, epoch)[:, 0, 0, 0].tolist() == [0] * 8
    assert np.array_equal(drawn(0, 7), drawn(0, 7))
