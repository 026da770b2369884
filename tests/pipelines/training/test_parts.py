"""Parts of the training clips: nothing twice, nothing lost, and the same batches whoever reads them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.parts import Parts, groups, groups_by_rank, in_shard_order, quotas, shares
from tests.helpers.fakes import FakeStore

STORE = FakeStore(count=25)


def cut(count, batch=8):
    return Parts.cut(STORE, STORE.examples, batch, count)


@given(st.integers(1, 40), st.data())
def test_each_clip_is_in_one_part_and_each_part_of_one_worker(batch, data):
    count = data.draw(st.integers(1, batch))
    world = data.draw(st.integers(1, count))
    clips = data.draw(st.integers(batch, 300))
    store = FakeStore(count=clips, segments=1, offsets=(0.5,), size=1)
    parts = Parts.cut(store, store.examples, batch, count)
    assert sorted(np.concatenate(parts.members).tolist()) == list(range(clips))
    assert sum(quotas(batch, count)) == batch
    assert sum(shares(batch, count, world)) == batch
    assert min(shares(batch, count, world)) >= 1
    assert [part for group in groups(count, world) for part in group] == list(range(count))
    steps = [list(parts.steps(1, 0, group, world)) for group in range(world)]
    assert {len(of) for of in steps} == {clips // batch}
    drawn = np.concatenate([clip for of in steps for clip in of])
    assert len(set(drawn.tolist())) == len(drawn) == clips // batch * batch
    assert all(len(np.concatenate(step)) == batch for step in zip(*steps, strict=True))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_global_batches_do_not_depend_on_the_number_of_workers(world):
    alone = [sorted(step.tolist()) for step in cut(4).steps(1, 5, 0, 1)]
    shared = [list(cut(4).steps(1, 5, group, world)) for group in range(world)]
    assert [sorted(np.concatenate(step).tolist()) for step in zip(*shared, strict=True)] == alone


def test_a_worker_reads_its_own_shards_only():
    parts = cut(4)
    order = in_shard_order(STORE, STORE.examples)
    assert np.concatenate(parts.members).tolist() == order
    for group in range(2):
        own = set(parts.own(group, 2).tolist())
        assert {int(i) for step in parts.steps(3, 1, group, 2) for i in step} <= own
        places = [STORE.place(f"clip{i}")[0] for i in parts.own(group, 2)]
        assert len(set(places)) <= 3  # of 5 shards, with 5 clips each: one is read by both
        assert all(one <= other for one, other in pairwise(places))
        assert parts.shards(STORE, STORE.examples, 2)[group] == set(places)
    whole = {STORE.place(example.clip_id)[0] for example in STORE.examples}
    assert cut(1).shards(STORE, STORE.examples, 3) == [whole] * 3


def test_epochs_and_seeds_draw_anew_and_repeat():
    first, again, other, seeded = (
        np.concatenate(list(cut(4).steps(seed, epoch, 0, 2))).tolist()
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert first == again
    assert first not in (other, seeded)
    left_out = [set(range(25)) - set(np.concatenate(list(cut(1).steps(1, epoch, 0, 1))).tolist()) for epoch in range(4)]
    assert len({frozenset(out) for out in left_out}) > 1  # not the same clip in every epoch


def test_ranks_take_what_their_machine_holds():
    assert groups_by_rank([[5, 5, 5]] * 3) == [0, 1, 2]
    assert groups_by_rank([[0, 9, 0], [9, 0, 0], [0, 0, 0]]) == [1, 0, 2]
    assert groups_by_rank([[3, 9], [4, 9]]) == [1, 0]
