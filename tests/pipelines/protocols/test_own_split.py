"""Seeded splits of own clips: whole groups, given parts, shots, held-out clips."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.protocols.own_split import base_and_novel, few_shots, hold_out, own_train_test, part_as_given
from tests.helpers.fakes import clip, folder_clips
from vlmodels.errors import UserError

NAMES = ("clap", "run", "sit", "walk")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.05, 0.9), groups=st.integers(2, 7))
def test_groups_are_never_torn_and_nothing_is_lost(seed, fraction, groups):
    clips = folder_clips(groups=groups)
    train, test, *_ = own_train_test(clips, fraction, seed)
    assert not {c.group for c in train} & {c.group for c in test}
    assert sorted(c.clip_id for c in train + test) == sorted(c.clip_id for c in clips)
    assert {c.label for c in train} == {c.label for c in test} == set(NAMES)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    fraction=st.floats(0.05, 0.9),
    members=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 6)), min_size=1, max_size=60),
)
def test_groups_that_span_classes_go_whole_too(seed, fraction, members):
    clips = [clip(n, label, group=f"s{group}") for n, (label, group) in enumerate(members)]
    train, test, *_ = own_train_test(clips, fraction, seed)
    assert not {c.group for c in train} & {c.group for c in test}
    assert len(train) + len(test) == len(clips)
    fit, held = hold_out(clips, fraction, seed)
    torn = {c.group for c in fit} & {c.group for c in held}
    groups = {label: {c.group for c in clips if c.label == label} for label in NAMES}
    assert torn <= set().union(*(g for g in groups.values() if len(g) == 1)), "only where a class has a single group"
    assert {c.label for c in fit} == {c.label for c in clips} or any(len(g) > 1 for g in groups.values())


def test_a_huge_group_does_not_turn_the_share_round():
    clips = [clip(n, "clap", group="small" if n == 0 else "huge") for n in range(30)]
    for seed in range(6):
        train, test, *_ = own_train_test(clips, 0.3, seed)
        assert (len(train), len(test)) == (29, 1)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train_256", "val_256"),
        ("training_set", "testing"),
        ("train_split1", "valid"),
        ("trainlist01", "dev"),
        ("TRAIN", "Test"),
    ],
)
def test_decorated_names_are_the_given_split(train, test):
    clips = [dataclasses.replace(c, split=(train, test)[i % 2]) for i, c in enumerate(folder_clips())]
    found = own_train_test(clips, 0.3, 1)
    assert {c.split for c in found.train} == {train}
    assert {c.split for c in found.test} == {test}
    assert found.source.startswith("split as given")


def test_validation_is_neither_where_there_is_a_test_part():
    clips = [dataclasses.replace(c, split=("train", "val", "test", "")[i % 4]) for i, c in enumerate(folder_clips())]
    train, test, _, notes = own_train_test(clips, 0.3, 1)
    assert (len(train), len(test)) == (10, 10)
    assert any("10 clips for validation are left out" in note for note in notes)
    assert any("10 clips without a split" in note for note in notes)


def test_folders_named_train_and_test_are_taken_at_their_word():
    clips = [dataclasses.replace(c, split="test" if "_0" in c.uri else "train") for c in folder_clips()]
    train, test, *_ = own_train_test(clips, 0.3, 1)
    assert {c.split for c in train} == {"train"}
    assert {c.split for c in test} == {"test"}


def test_words_in_their_names_distinguish_lists():
    parts = {"walk": "fs_base_s1_train", "run": "Train|fs_base_s2_train", "clap": "Val1", "sit": "novel_val"}
    clips = [dataclasses.replace(c, split=parts[c.label]) for c in folder_clips()]
    train, test, _, notes = own_train_test(clips, 0.3, 1)
    assert {c.label for c in train} == {"walk", "run"}
    assert {c.label for c in test} == {"clap", "sit"}
    assert any("clap, sit" in note for note in notes), "classes that cannot be used are named"


def test_one_list_of_everything_says_nothing_of_train_and_test():
    clips = [dataclasses.replace(c, split="all") for c in folder_clips()]
    train, test, *_ = own_train_test(clips, 0.3, 1)
    assert (len(train), len(test)) == (24, 16)
    assert part_as_given(clips, "test") == clips


def test_a_part_is_taken_as_given():
    clips = [dataclasses.replace(c, split="val|extra" if "_0" in c.uri else "train") for c in folder_clips()]
    assert {c.split for c in part_as_given(clips, "test")} == {"val|extra"}
    assert {c.split for c in part_as_given(clips, "train")} == {"train"}


@pytest.mark.parametrize(
    ("splits", "words"),
    [(("train", "extra"), "unclear"), (("train", "train"), "unclear"), (("train|test", "test"), "both")],
)
def test_given_splits_that_are_unclear_are_refused(splits, words):
    clips = [dataclasses.replace(c, split=splits[i % 2]) for i, c in enumerate(folder_clips())]
    with pytest.raises(UserError, match=words):
        own_train_test(clips, 0.3, 1)


def test_clips_of_one_source_are_held_out_together():
    fit, held = hold_out(folder_clips(), 0.1, seed=3)
    assert len(held) == 8, "one group of two clips a class"
    assert not {c.group for c in fit} & {c.group for c in held}


def test_held_out_clips_come_from_train_and_leave_one():
    clips = folder_clips()
    fit, held = hold_out(clips, 0.2, seed=1)
    assert len(held) == 8
    assert {c.clip_id for c in fit} | {c.clip_id for c in held} == {c.clip_id for c in clips}
    lone = [clip(1, "clap")]
    assert hold_out(lone, 0.9, seed=1) == (lone, [])


def test_classes_with_too_few_videos_for_k_shots_are_named():
    clips = [*folder_clips(), *[clip(n, "jump") for n in range(3)]]
    with pytest.raises(UserError, match=r"1 of 5 classes have fewer than 8 training videos: jump \(3\); set "):
        few_shots(clips, 8, seed=1)
    assert len(few_shots(clips, 8, seed=1, fewer=True)) == 4 * 8 + 3


def test_shots_are_drawn_by_the_seed():
    draws = [few_shots(folder_clips(), 4, seed) for seed in (1, 2, 1)]
    assert draws[0] == draws[2] != draws[1]


def test_frequent_classes_are_base():
    clips = [c for c in folder_clips() if c.label != "clap"] + folder_clips()[:6]
    assert base_and_novel(clips, NAMES) == (("run", "sit"), ("clap", "walk"))
    with pytest.raises(UserError, match="at least 2 classes"):
        base_and_novel([clip(1, "clap")], NAMES)
