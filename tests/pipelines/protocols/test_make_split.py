"""Protocols on published lists and on own data."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pipelines.protocols.make_split import make_split
from pipelines.protocols.split import NOTHING, Source
from tests.helpers.fakes import clip, folder_clips
from tests.helpers.protocol_cases import NAMES, config, counts, label_file, lines, source
from vlmodels.errors import UserError


def test_base_to_novel_reads_published_lists_as_they_are(lists):
    split = make_split(config(lists=lists, shots=4), source(), seed=1)
    assert split.train_classes == ("clap", "run")
    assert counts(split) == (8, [("base", 2, 8), ("novel", 2, 20)])
    assert {e.target for e in split.tests[1].examples} == {0, 1}
    assert set(split.lists) >= {"fs_base_s1_train.txt", "novel_labels.csv"}


def test_the_seed_chooses_the_published_subset_and_the_digest(lists):
    one, two = (make_split(config(lists=lists, shots=4), source(), seed=s) for s in (1, 2))
    assert one.train != two.train
    assert one.digest != two.digest
    assert one.digest == make_split(config(lists=lists, shots=4), source(), seed=1).digest
    with pytest.raises(UserError, match="fs_base_s3_train"):
        make_split(config(lists=lists, shots=4), source(), seed=3)


def test_few_shot_trains_on_k_and_scores_the_first_list_only(lists):
    split = make_split(config("few_shot", lists, shots=2), source(), seed=1)
    assert counts(split) == (8, [("val1", 4, 16)])
    with pytest.raises(UserError, match="train1_few_shot_4"):
        make_split(config("few_shot", lists, shots=4), source(), seed=1)


def test_few_shot_on_a_leaking_list_is_refused_unless_forced(lists):
    leaking = config("few_shot", lists, shots=2, test_lists=("val2",))
    with pytest.raises(UserError, match=r"4 videos are trained on and scored in val2 too \(for instance .*allow_leak"):
        make_split(leaking, source(), seed=1)
    assert make_split(dataclasses.replace(leaking, allow_leak=True), source(), seed=1).tests[0].n_listed == 16


def test_supervised_trains_on_everything(lists):
    assert counts(make_split(config("supervised", lists), source(), seed=1)) == (24, [("val1", 4, 16)])
    (lists / "train.txt").unlink()
    with pytest.raises(UserError, match=r"no training list .*protocol.train_list"):
        make_split(config("supervised", lists), source(), seed=1)


@pytest.mark.parametrize("name", ["supervised", "few_shot", "b2n"])
def test_held_out_classes_are_neither_trained_nor_scored_but_kept_as_unseen(name):
    names = tuple(f"class {i}" for i in range(8))
    data = Source("mine", "/nowhere", tuple(folder_clips(names=names)), names)
    plain, split = (
        make_split(config(name, shots=2, holdout=0.25, holdout_classes=share), data, seed=1) for share in (0.0, 0.5)
    )
    unseen = set(split.select_novel.classes)
    assert unseen == set(plain.train_classes) - set(split.train_classes)
    (of_test,) = split.unseen
    first = split.tests[0]
    assert (of_test.name, first.classes, set(of_test.classes)) == (first.name, split.train_classes, unseen)
    scored = {e.clip_id for e in first.examples}
    assert scored | {e.clip_id for e in of_test.examples} == {e.clip_id for e in plain.tests[0].examples}
    assert plain.tests[1:] == split.tests[1:]
    assert any("held out whole" in note for note in split.notes)
    assert not plain.unseen


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


def kept_data(lists, tmp_path, names, dataset=None):
    """An ingested data set that kept these lists."""
    folder = tmp_path / "data"
    (folder / "lists").mkdir(parents=True)
    for name in names:
        (folder / "lists" / name).write_bytes((lists / name).read_bytes())
    (folder / "lists" / "lists.json").write_text(json.dumps({"dataset": dataset, "labels": {}}))
    return source(folder=folder)


def test_lists_that_ingest_kept_are_used_and_say_nothing_of_other_protocols(lists, tmp_path):
    data = kept_data(lists, tmp_path, ["train.txt", "val1.txt", "labels.csv"])
    assert counts(make_split(config("supervised"), data, seed=1))[0] == 24
    own = make_split(config(shots=4), data, seed=1)
    assert own.source == "own split of the ingested data, split seed 1", "these lists say nothing of base and novel"


def test_an_own_split_never_passes_for_a_published_one(lists, tmp_path):
    names = ["fs_base_s1_train.txt", "base_val.txt", "novel_val.txt", "labels.csv", "base_labels.csv"]
    data = kept_data(lists, tmp_path, [*names, "novel_labels.csv"])
    with pytest.raises(UserError, match=r"seed 4 takes the training subset fs_base_s4_train, .* there \(1\)"):
        make_split(config(shots=4), data, seed=4)
    of_hmdb = kept_data(lists, tmp_path / "hmdb", [*names, "novel_labels.csv"], "hmdb51")
    for name, words in (("few_shot", "train1_few_shot_16"), ("supervised", "no training list"), ("zero_shot", "val1")):
        with pytest.raises(UserError, match=words):
            make_split(config(name), of_hmdb, seed=1)


def test_k600_is_scored_by_osts_lists_too(tmp_path):
    for n in (1, 2):
        label_file(tmp_path, f"ZS_split{n}_K600.csv", NAMES)
        (tmp_path / f"ZS_split{n}_K600_eval_filtered_OST.txt").write_text(lines(NAMES, slice(0, n)))
    split = make_split(config("zero_shot", tmp_path, dataset="k600"), source(name="k600"), seed=1)
    assert [t.name for t in split.tests] == [f"k600/ZS_split{n}_K600_eval_filtered_OST" for n in (1, 2)]


def test_shots_must_be_those_of_the_list(lists):
    with pytest.raises(UserError, match=r"has 4 videos of a class, protocol.shots is 16; set protocol.shots=4"):
        make_split(config(lists=lists), source(), seed=1)


def test_own_draws_are_one_for_each_seed(lists):
    assert any("one draw" in note for note in make_split(config("few_shot", lists, shots=2), source(), seed=9).notes)
    (lists / "train2_few_shot_2.txt").write_text(lines(NAMES, slice(2, 4)))
    drawn = [make_split(config("few_shot", lists, shots=2), source(), seed=s).train for s in (1, 2)]
    assert drawn[0] != drawn[1]
    with pytest.raises(UserError, match="train9_few_shot_2"):
        make_split(config("few_shot", lists, shots=2), source(), seed=9)


def test_what_is_trained_on_is_not_scored_anywhere(lists):
    (lists / "base_val.txt").write_text((lists / "fs_base_s1_train.txt").read_text())
    with pytest.raises(UserError, match="trained on and scored in base too"):
        make_split(config(lists=lists, shots=4), source(), seed=1)
    data = source([dataclasses.replace(c, sha256=c.clip_id) for c in folder_clips()])
    with pytest.raises(UserError, match="trained on and scored in again/val2 too"):
        make_split(
            config("zero_shot", lists), data, seed=1, tests=[dataclasses.replace(data, name="again", folder="x")]
        )


def test_copies_of_training_files_are_noted():
    data = source([dataclasses.replace(c, sha256="same") for c in folder_clips()])
    notes = make_split(config("supervised"), data, seed=1).notes
    assert any("16 videos scored in test are copies" in note for note in notes)


def test_lists_are_not_named_in_vain():
    with pytest.raises(UserError, match="but there are none; pass --lists"):
        make_split(config("supervised", train_list="train_tiny"), source(), seed=1)


def test_swapped_names_are_noted_wherever_they_are_scored(tmp_path):
    names = ("kick ball", "kick", "sit", "walk")
    clips = [dataclasses.replace(c, label=dict(zip(NAMES, names, strict=True))[c.label]) for c in folder_clips()]
    label_file(tmp_path, "hmdb_51_labels.csv", names)
    for n in (1, 2, 3):
        (tmp_path / f"val{n}.txt").write_text(lines(NAMES, slice(0, n)))
    hmdb = Source("hmdb51", "/elsewhere", tuple(clips), names)
    for which, word in (("as_published", "are swapped, as published"), ("corrected", "are corrected")):
        split = make_split(config("zero_shot", tmp_path, hmdb_names=which), NOTHING, seed=1, tests=[hmdb])
        assert any(word in note for note in split.notes)
    assert split.tests[0].classes[:2] == ("kick", "kick ball")


def test_listed_paths_are_found_by_unique_file_name_or_stem(lists):
    moved = [dataclasses.replace(c, uri=f"videos/all/{c.uri.rsplit('/', 1)[-1]}") for c in folder_clips()]
    assert len(make_split(config(lists=lists, shots=4), source(moved), seed=1).train) == 8
    other = [dataclasses.replace(c, uri=c.uri.replace(".mp4", ".webm")) for c in folder_clips()]
    assert len(make_split(config(lists=lists, shots=4), source(other), seed=1).train) == 8


def test_a_file_of_another_class_or_part_is_not_the_listed_one(lists):
    (lists / "val1.txt").write_text("clap/0001.mp4 0\n")
    (lists / "train.txt").write_text("run/0001.mp4 1\n")
    with pytest.raises(UserError, match=r"train.txt: 1 of 1 listed videos were never ingested \(first: run/0001.mp4"):
        make_split(config("supervised", lists), source([clip(1, "clap", uri="clap/0001.mp4")]), seed=1)


def test_videos_that_were_never_ingested_are_named(lists):
    some = [c for c in folder_clips() if c.label != "walk"]
    with pytest.raises(UserError, match=r"novel_val.txt: 10 of 20 listed videos were never ingested"):
        make_split(config(lists=lists, shots=4), source(some), seed=1)


def test_undecodable_listed_videos_stay_listed(lists):
    broken = [dataclasses.replace(c, ok=c.clip_id != "id-walk-0_0", error="zero bytes") for c in folder_clips()]
    novel = make_split(config(lists=lists, shots=4), source(broken), seed=1).tests[1]
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
