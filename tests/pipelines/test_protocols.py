"""Protocols on published lists and on own data, and what their digests stand for."""

from __future__ import annotations

import dataclasses

import pytest
from fakes import clip, folder_clips
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import ProtocolConfig
from pipelines.protocols import make_split
from pipelines.splits import Scoring, Source
from vlmodels.errors import UserError

NAMES = ("clap", "run", "sit", "walk")


def source(clips=None, name="mine", folder="/nowhere"):
    return Source(name, str(folder), tuple(clips if clips is not None else folder_clips()), NAMES)


def label_file(folder, file, names):
    (folder / file).write_text("id,name\r\n" + "".join(f"{i},{n}\r\n" for i, n in enumerate(names)), newline="")


def lines(names, part):
    listed = {c.label: [] for c in folder_clips()}
    for c in folder_clips():
        listed[c.label].append(c.uri)
    return "".join(f"{uri} {i}\n" for i, n in enumerate(names) for uri in listed[n][part])


@pytest.fixture
def lists(tmp_path):
    """Own lists in the published form, of all protocols."""
    base, novel = NAMES[:2], NAMES[2:]
    label_file(tmp_path, "labels.csv", NAMES)
    label_file(tmp_path, "base_labels.csv", base)
    label_file(tmp_path, "novel_labels.csv", novel)
    for name, names, part in (
        ("fs_base_s1_train", base, slice(0, 4)),
        ("fs_base_s2_train", base, slice(2, 6)),
        ("base_val", base, slice(6, 10)),
        ("novel_val", novel, slice(0, 10)),
        ("train1_few_shot_2", NAMES, slice(0, 2)),
        ("train", NAMES, slice(0, 6)),
        ("val1", NAMES, slice(6, 10)),
        ("val2", NAMES, slice(1, 5)),
    ):
        (tmp_path / f"{name}.txt").write_text(lines(names, part))
    return tmp_path


def config(name="b2n", lists=None, **settings):
    return ProtocolConfig(name=name, lists=None if lists is None else str(lists), **settings)


def counts(split):
    return len(split.train), [(t.name, len(t.classes), t.n_listed) for t in split.tests]


def test_base_to_novel_reads_published_lists_as_they_are(lists):
    split = make_split(config(lists=lists), source(), seed=1)
    assert split.train_classes == ("clap", "run")
    assert counts(split) == (8, [("base", 2, 8), ("novel", 2, 20)])
    assert {e.target for e in split.tests[1].examples} == {0, 1}
    assert set(split.lists) >= {"fs_base_s1_train.txt", "novel_labels.csv"}


def test_the_seed_chooses_the_published_subset_and_the_digest(lists):
    one, two = (make_split(config(lists=lists), source(), seed=s) for s in (1, 2))
    assert one.train != two.train
    assert one.digest != two.digest
    assert one.digest == make_split(config(lists=lists), source(), seed=1).digest
    with pytest.raises(UserError, match="fs_base_s3_train"):
        make_split(config(lists=lists), source(), seed=3)


def test_few_shot_trains_on_k_and_scores_the_first_list_only(lists):
    split = make_split(config("few_shot", lists, shots=2), source(), seed=1)
    assert counts(split) == (8, [("val1", 4, 16)])
    with pytest.raises(UserError, match="train1_few_shot_4"):
        make_split(config("few_shot", lists, shots=4), source(), seed=1)


def test_few_shot_on_a_leaking_list_is_refused_unless_forced(lists):
    leaking = config("few_shot", lists, shots=2, test_lists=("val2",))
    with pytest.raises(UserError, match=r"4 videos of the training list train1_few_shot_2 are on the test list val2"):
        make_split(leaking, source(), seed=1)
    assert make_split(dataclasses.replace(leaking, allow_leak=True), source(), seed=1).tests[0].n_listed == 16


def test_supervised_trains_on_everything(lists):
    assert counts(make_split(config("supervised", lists), source(), seed=1)) == (24, [("val1", 4, 16)])
    (lists / "train.txt").unlink()
    with pytest.raises(UserError, match=r"no training list .*protocol.train_list"):
        make_split(config("supervised", lists), source(), seed=1)


def test_zero_shot_scores_every_list_of_other_data(lists):
    other = source(name="other", folder="/elsewhere")
    split = make_split(config("zero_shot", lists), source(), seed=1, tests=[other])
    assert counts(split) == (24, [("other/val1", 4, 16), ("other/val2", 4, 16)])
    assert {t.data for t in split.tests} == {"/elsewhere"}
    assert any("4 of the 4 classes of other/val1 are training classes" in note for note in split.notes)


def test_zero_shot_without_other_data_trains_nothing(lists):
    split = make_split(config("zero_shot", lists), source(), seed=1)
    assert counts(split) == (0, [("mine/val1", 4, 16), ("mine/val2", 4, 16)])
    own = make_split(config("zero_shot"), source(), seed=1)
    assert counts(own) == (0, [("mine/all", 4, 40)])


def test_lists_that_ingest_kept_are_used_if_they_suffice(lists, tmp_path):
    folder = tmp_path / "data"
    (folder / "lists").mkdir(parents=True)
    for name in ("train.txt", "val1.txt", "labels.csv"):
        (folder / "lists" / name).write_bytes((lists / name).read_bytes())
    assert counts(make_split(config("supervised"), source(folder=folder), seed=1))[0] == 24
    own = make_split(config(shots=4), source(folder=folder), seed=1)
    assert own.source == "own split of the ingested data, split seed 1", "these lists say nothing of base and novel"


def test_listed_paths_are_found_by_unique_file_name_or_stem(lists):
    moved = [dataclasses.replace(c, uri=f"videos/all/{c.uri.rsplit('/', 1)[-1]}") for c in folder_clips()]
    assert len(make_split(config(lists=lists), source(moved), seed=1).train) == 8
    other = [dataclasses.replace(c, uri=c.uri.replace(".mp4", ".webm")) for c in folder_clips()]
    assert len(make_split(config(lists=lists), source(other), seed=1).train) == 8


def test_videos_that_were_never_ingested_are_named(lists):
    some = [c for c in folder_clips() if c.label != "walk"]
    with pytest.raises(UserError, match=r"novel_val.txt: 10 of 20 listed videos were never ingested"):
        make_split(config(lists=lists), source(some), seed=1)


def test_undecodable_listed_videos_stay_listed(lists):
    broken = [dataclasses.replace(c, ok=c.clip_id != "id-walk-0_0", error="zero bytes") for c in folder_clips()]
    novel = make_split(config(lists=lists), source(broken), seed=1).tests[1]
    assert (novel.n_listed, len(novel.examples)) == (20, 19)
    assert novel.unscored == (("walk/v_walk_0_0.mp4", "zero bytes"),)


@pytest.mark.parametrize("name", ["b2n", "few_shot", "supervised"])
def test_own_data_needs_no_lists(name):
    split = make_split(config(name, shots=3), source(), seed=1)
    shots = {"b2n": 2 * 3, "few_shot": 4 * 3, "supervised": 4 * 6}[name]
    assert len(split.train) == shots
    assert sum(t.n_listed for t in split.tests) == 16


def test_too_few_videos_for_k_shots_is_one_message():
    with pytest.raises(UserError, match=r"2 of 2 classes have fewer than 16 training videos: clap \(6\), run \(6\)"):
        make_split(config(), source(), seed=1)


def test_unknown_protocol_suggests():
    with pytest.raises(UserError, match="did you mean 'b2n'"):
        make_split(config("b2m"), source(), seed=1)


# ------------------------------------------------------------------------------------------------------ retrieval


@pytest.fixture
def captioned(tmp_path):
    (tmp_path / "captions.csv").write_text(
        "video,caption,split\n"
        + "".join(f"{c.uri},{c.label} {n},{'train' if n < 30 else 'test'}\n" for n, c in enumerate(folder_clips()))
        + f"{folder_clips()[0].uri},another,train\n"
    )
    return config("retrieval", captions=str(tmp_path / "captions.csv"))


def test_retrieval_has_an_example_for_every_caption(captioned):
    broken = [dataclasses.replace(c, ok=i != 39) for i, c in enumerate(folder_clips())]
    split = make_split(captioned, source(broken), seed=1)
    assert len(split.train) == len(split.captions) == 31
    said = {split.captions[e.target] for e in split.train if e.clip_id == folder_clips()[0].clip_id}
    assert said == {"clap 0", "another"}
    (test,) = split.tests
    assert (len(test.examples), test.n_listed, test.lost_captions) == (9, 10, 1)
    assert test.captions[0] == ("walk 30",)


def test_retrieval_holds_out_videos_not_captions(captioned):
    split = make_split(dataclasses.replace(captioned, holdout=0.2), source(), seed=1)
    held = {e.clip_id for e in split.select}
    assert held
    assert len(held) == len(split.select)
    assert not held & {e.clip_id for e in split.train}


def test_captioned_test_videos_that_are_not_there_count_as_lost(captioned):
    split = make_split(captioned, source(folder_clips()[:-2]), seed=1)
    (test,) = split.tests
    assert (len(test.examples), test.n_listed, test.lost_captions) == (8, 10, 2)
    assert test.unscored[0] == (folder_clips()[-2].uri, "never ingested")


def test_videos_that_are_trained_on_and_tested_are_refused(captioned, tmp_path):
    with (tmp_path / "captions.csv").open("a") as file:
        file.write(f"{folder_clips()[0].uri},again,test\n")
    with pytest.raises(UserError, match="1 videos have captions in train and in test too"):
        make_split(captioned, source(), seed=1)
    assert make_split(dataclasses.replace(captioned, allow_leak=True), source(), seed=1).tests[0].n_listed == 11


def test_captions_without_a_split_get_one_that_keeps_groups_whole(tmp_path):
    (tmp_path / "c.csv").write_text("video,caption\n" + "".join(f"{c.uri},x\n" for c in folder_clips()))
    split = make_split(config("retrieval", captions=str(tmp_path / "c.csv")), source(), seed=1)
    groups = {c.clip_id: c.group for c in folder_clips()}
    train, test = ({groups[e.clip_id] for e in part} for part in (split.train, split.tests[0].examples))
    assert train
    assert test
    assert not train & test


def test_retrieval_without_captions_says_where_they_would_be():
    with pytest.raises(UserError, match=r"captions.json is not there; pass --captions FILE"):
        make_split(config("retrieval"), source(), seed=1)


# --------------------------------------------------------------------------------------------------------- digest


SCORING = Scoring(frames=8, clips=1, crops=1)
CHANGES = {
    "seed": lambda s: {"seed": 2},
    "shots": lambda s: {"config": config(shots=4)},
    "a file's content": lambda s: {
        "data": source([dataclasses.replace(c, sha256="other") if "_0_0" in c.uri else c for c in folder_clips()])
    },
    "a broken clip": lambda s: {
        "data": source([dataclasses.replace(c, ok="_0_0" not in c.uri) for c in folder_clips()])
    },
    "frames": lambda s: {"scoring": dataclasses.replace(SCORING, frames=16)},
    "clips": lambda s: {"scoring": dataclasses.replace(SCORING, clips=4)},
    "crops": lambda s: {"scoring": dataclasses.replace(SCORING, crops=3)},
    "sampling": lambda s: {"scoring": dataclasses.replace(SCORING, sampling="dense", stride=16)},
    "a class's name": lambda s: {
        "data": dataclasses.replace(
            source([dataclasses.replace(c, label=c.label.replace("run", "jog")) for c in folder_clips()]),
            classes=("clap", "jog", "sit", "walk"),
        )
    },
}


def digest(**changes):
    given = {"config": config(shots=3), "data": source(), "seed": 1, "scoring": SCORING} | changes
    return make_split(given["config"], given["data"], given["seed"], scoring=given["scoring"]).digest


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_changes_if_what_is_scored_changes(change):
    assert digest() != digest(**change(None))


@settings(max_examples=20, deadline=None)
@given(folder=st.text(min_size=1, max_size=5), extra=st.integers(0, 3))
def test_the_digest_stays_if_nothing_that_is_scored_changes(folder, extra):
    """Where the data lies, what it is called, who reports it, and clips without a label are nothing to it."""
    unlabelled = [clip(n, "") for n in range(extra)]
    data = Source("named otherwise", folder, tuple(folder_clips() + unlabelled), NAMES)
    assert digest() == digest(data=data)
    assert digest() == digest(config=config(shots=3, captions="x", labels=None))
