"""Protocols on published lists and on own data, and what their digests stand for."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fakes import clip, folder_clips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.schema import ProtocolConfig
from pipelines.protocols.make import make_split
from pipelines.protocols.split import NOTHING, Scoring, Source
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
    """Own lists in the published form, of all protocols; base-to-novel's have 4 shots."""
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


def test_copies_of_training_files_are_told():
    data = source([dataclasses.replace(c, sha256="same") for c in folder_clips()])
    notes = make_split(config("supervised"), data, seed=1).notes
    assert any("16 videos scored in test are copies" in note for note in notes)


def test_lists_are_not_named_in_vain():
    with pytest.raises(UserError, match="but there are none; pass --lists"):
        make_split(config("supervised", train_list="train_tiny"), source(), seed=1)


def test_swapped_names_are_told_wherever_they_are_scored(tmp_path):
    names = ("kick ball", "kick", "sit", "walk")
    clips = [dataclasses.replace(c, label=dict(zip(NAMES, names, strict=True))[c.label]) for c in folder_clips()]
    label_file(tmp_path, "hmdb_51_labels.csv", names)
    for n in (1, 2, 3):
        (tmp_path / f"val{n}.txt").write_text(lines(NAMES, slice(0, n)))
    hmdb = Source("hmdb51", "/elsewhere", tuple(clips), names)
    for which, word in (("as_published", "are swapped, as published"), ("corrected", "are put right")):
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
MINE = source()
CHANGES = {
    "a file's content": {"data": source([dataclasses.replace(c, sha256=f"{c.uri}!") for c in folder_clips()])},
    "broken clips": {"data": source([dataclasses.replace(c, ok="_0" not in c.uri) for c in folder_clips()])},
    "frames": {"scoring": dataclasses.replace(SCORING, frames=16)},
    "clips": {"scoring": dataclasses.replace(SCORING, clips=4)},
    "crops": {"scoring": dataclasses.replace(SCORING, crops=3)},
    "stored size": {"scoring": dataclasses.replace(SCORING, short_side=256)},
    "sampling": {"scoring": dataclasses.replace(SCORING, sampling="dense", stride=16)},
    "a class's name": {
        "data": dataclasses.replace(
            source([dataclasses.replace(c, label=c.label.replace("run", "jog")) for c in folder_clips()]),
            classes=("clap", "jog", "sit", "walk"),
        )
    },
}


@pytest.fixture(params=["zero_shot", "few_shot", "b2n", "supervised", "retrieval"])
def digest(request, tmp_path):
    """Digest of a protocol on own data, with changes to what it is given."""
    (tmp_path / "c.csv").write_text("video,caption\n" + "".join(f"{c.uri},{c.label}\n" for c in folder_clips()))
    common = {"name": request.param, "shots": 3, "fewer_shots": True, "captions": str(tmp_path / "c.csv")}

    def made(data=MINE, seed=1, scoring=SCORING, **settings):
        return make_split(config(**common | settings), data, seed, scoring=scoring).digest

    made.protocol = request.param
    return made


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_digest_changes_if_what_is_scored_changes(digest, change, request):
    nameless = digest.protocol == "retrieval" and "name" in request.node.callspec.id  # it has captions instead
    assert (digest() == digest(**change)) == nameless


def test_the_digest_changes_with_what_is_drawn(digest):
    if digest.protocol in ("few_shot", "b2n"):
        assert digest() != digest(seed=2)
        assert digest() != digest(shots=2)
    if digest.protocol != "zero_shot":
        assert digest() != digest(split_seed=2)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=5), folder=st.text(min_size=1, max_size=5), extra=st.integers(0, 3))
def test_the_digest_stays_if_nothing_that_is_scored_changes(digest, name, folder, extra):
    """Where the data lies, what it is called, and clips without a label or a caption are nothing to it."""
    unlabelled = [clip(n, "") for n in range(extra)]
    data = Source(name, folder, tuple(folder_clips() + unlabelled), NAMES)
    assert digest() == digest(data=data)
    assert digest() == digest(allow_leak=True, hmdb_names="corrected")
