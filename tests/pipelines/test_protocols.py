"""Base-to-novel on published lists and on own data."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import clip
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import ProtocolConfig
from pipelines.protocols import hold_out, make_split, own_train_test
from vlmodels.errors import UserError

NAMES = ("clap", "run", "sit", "walk")


def folder_clips(per_group=2, groups=5):
    return [
        clip(f"{g}_{i}", name, group=f"{name}_g{g}") for name in NAMES for g in range(groups) for i in range(per_group)
    ]


def write_lists(folder, base=("clap", "run"), novel=("sit", "walk")):
    for part, names in (("base", base), ("novel", novel)):
        (folder / f"{part}_labels.csv").write_text("id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
    listed = {c.label: [] for c in folder_clips()}
    for c in folder_clips():
        listed[c.label].append(c.uri)

    def lines(names, part):
        return "".join(f"{uri} {i}\n" for i, n in enumerate(names) for uri in listed[n][part])

    (folder / "fs_base_s1_train.txt").write_text(lines(base, slice(0, 4)))
    (folder / "fs_base_s2_train.txt").write_text(lines(base, slice(2, 6)))
    (folder / "base_val.txt").write_text(lines(base, slice(6, 10)))
    (folder / "novel_val.txt").write_text(lines(novel, slice(0, 10)))
    return ProtocolConfig(lists=str(folder))


def test_published_lists_are_read_as_they_are(tmp_path):
    split = make_split(write_lists(tmp_path), folder_clips(), NAMES, seed=1)
    assert split.train_classes == ("clap", "run")
    assert len(split.train) == 8
    assert [(t.name, t.classes, t.n_listed) for t in split.tests] == [
        ("base", ("clap", "run"), 8),
        ("novel", ("sit", "walk"), 20),
    ]
    assert {e.target for e in split.tests[1].examples} == {0, 1}


def test_the_seed_chooses_the_published_subset_and_the_digest(tmp_path):
    config = write_lists(tmp_path)
    one, two = (make_split(config, folder_clips(), NAMES, seed=s) for s in (1, 2))
    assert one.train != two.train
    assert one.digest != two.digest
    assert one.digest == make_split(config, folder_clips(), NAMES, seed=1).digest
    with pytest.raises(UserError, match="fs_base_s3_train"):
        make_split(config, folder_clips(), NAMES, seed=3)


def test_listed_paths_are_found_by_unique_file_name(tmp_path):
    config = write_lists(tmp_path)
    moved = [dataclasses.replace(c, uri=f"videos/all/{c.uri.rsplit('/', 1)[-1]}") for c in folder_clips()]
    assert len(make_split(config, moved, NAMES, seed=1).train) == 8


def test_videos_that_were_never_ingested_are_named(tmp_path):
    config = write_lists(tmp_path)
    some = [c for c in folder_clips() if c.label != "walk"]
    with pytest.raises(UserError, match=r"novel_val.txt: 10 of 20 listed videos were never ingested"):
        make_split(config, some, NAMES, seed=1)


def test_undecodable_listed_videos_stay_listed(tmp_path):
    config = write_lists(tmp_path)
    broken = [dataclasses.replace(c, ok=c.clip_id != "id-walk-0_0", error="zero bytes") for c in folder_clips()]
    novel = make_split(config, broken, NAMES, seed=1).tests[1]
    assert (novel.n_listed, len(novel.examples)) == (20, 19)
    assert novel.unscored == (("walk/v_walk_0_0.mp4", "zero bytes"),)


def test_own_data_makes_frequent_classes_base():
    clips = [c for c in folder_clips() if c.label != "clap"] + folder_clips()[:6]
    split = make_split(ProtocolConfig(), clips, NAMES, seed=1)
    assert split.train_classes == ("run", "sit")
    assert split.tests[1].classes == ("clap", "walk")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.05, 0.9), groups=st.integers(2, 7))
def test_groups_are_never_torn_and_nothing_is_lost(seed, fraction, groups):
    clips = folder_clips(groups=groups)
    train, test, _ = own_train_test(clips, fraction, seed)
    assert not {c.group for c in train} & {c.group for c in test}
    assert sorted(c.clip_id for c in train + test) == sorted(c.clip_id for c in clips)
    assert {c.label for c in train} == {c.label for c in test} == set(NAMES)


def test_folders_named_train_and_test_are_taken_at_their_word():
    clips = [dataclasses.replace(c, split="test" if "_0" in c.uri else "train") for c in folder_clips()]
    train, test, _ = own_train_test(clips, 0.3, 1)
    assert {c.split for c in train} == {"train"}
    assert {c.split for c in test} == {"test"}


def test_lists_are_told_apart_by_the_words_in_their_names():
    parts = {"walk": "fs_base_s1_train", "run": "Train|fs_base_s2_train", "clap": "Val1", "sit": "novel_val"}
    clips = [dataclasses.replace(c, split=parts[c.label]) for c in folder_clips()]
    train, test, notes = own_train_test(clips, 0.3, 1)
    assert {c.label for c in train} == {"walk", "run"}
    assert {c.label for c in test} == {"clap", "sit"}
    assert any("clap, sit" in note for note in notes), "classes that cannot be used are named"


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


def test_shots_limit_training_clips():
    split = make_split(ProtocolConfig(shots=3), folder_clips(), NAMES, seed=1)
    assert len(split.train) == 2 * 3


def test_unknown_protocol_suggests():
    with pytest.raises(UserError, match="did you mean 'b2n'"):
        make_split(ProtocolConfig(name="b2m"), folder_clips(), NAMES, seed=1)


@pytest.mark.parametrize(("name", "counts"), [("hmdb", (416, 780, 750)), ("ucf", (816, 2088, 1695))])
def test_real_published_lists(shared_data, name, counts):
    """Every listed video is made up as ingested; the counts are those of the published lists."""
    from pipelines.data.manifest import read_list

    folder = shared_data / "splits" / "base2novel_splits" / f"{name}_splits"
    labels = shared_data / "labels" / {"hmdb": "hmdb_51", "ucf": "ucf_101"}[name]
    config = ProtocolConfig(
        lists=str(folder), base_labels=f"{labels}_base_labels.csv", novel_labels=f"{labels}_novel_labels.csv"
    )
    stems = ("fs_base_s1_train", "base_val", "novel_val")
    uris = {line.path for stem in stems for line in read_list(folder / f"{stem}.txt")}
    clips = [clip(i, "any", uri=uri) for i, uri in enumerate(sorted(uris))]
    split = make_split(config, clips, (), seed=1)
    assert (len(split.train), *(t.n_listed for t in split.tests)) == counts
