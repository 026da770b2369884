"""Folders of lists: found in every layout, read in every form, small imitations of the published irregularities."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.videos.inputs import find_inputs, find_listed
from pipelines.videos.kept_lists import keep_lists, labels_text, list_text, swap_in
from pipelines.videos.list_choice import wanted_lists
from pipelines.videos.list_files import read_labels, read_list, read_videos
from pipelines.videos.list_folder import ListFolder
from vlmodels.errors import UserError

HMDB = ("kick ball", "kick", "run")


def put(path, content="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def labels(path, names, end="\n"):
    return put(path, end.join(["id,name", *(f'{i},"{name}"' for i, name in enumerate(names))]) + end)


@pytest.fixture
def repository(tmp_path):
    """A published repository in small: labels with CRLF, lists beside a README and requirements."""
    root = tmp_path / "repo"
    put(root / "requirements.txt", "torch==1.0\n")
    labels(root / "labels" / "hmdb_51_labels.csv", HMDB, "\r\n")
    labels(root / "labels" / "hmdb_51_base_labels.csv", ("run",), "\r\n")
    labels(root / "labels" / "hmdb_51_novel_labels.csv", ("kick ball", "kick"), "\r\n")
    splits = root / "splits" / "hmdb_splits"
    put(splits / "val1.txt", "a_[x]#1_kick_ball.avi 1\r\nb_(HQ)&;~@!+_kick.avi 0\r\nr_run.avi 2")  # no final newline
    put(splits / "val2.txt.gz", gzip.compress(b"t_run.avi 2\n"))
    put(splits / "train1_few_shot_2.txt", "t_run.avi 2\n")
    both = root / "splits" / "base2novel_splits" / "hmdb_splits"
    put(both / "fs_base_s1_train.txt", "t_run.avi 0\n")
    put(both / "base_val.txt", "r_run.avi 0\n")
    put(both / "novel_val.txt", "a_[x]#1_kick_ball.avi 1\nb_(HQ)&;~@!+_kick.avi 0\n")
    for name in ("a_[x]#1_kick_ball.avi", "b_(HQ)&;~@!+_kick.avi", "r_run.avi", "t_run.avi"):
        put(tmp_path / "videos" / name)
    return root


def test_a_repository_its_parts_and_the_data_set_of_a_folder(repository):
    every = ["val1", "val2", "train1_few_shot_2", "fs_base_s1_train", "base_val", "novel_val"]
    assert ListFolder.open(repository, "hmdb51").names() == every
    assert ListFolder.open(repository / "splits", "hmdb51").names() == every
    part = ListFolder.open(repository / "splits" / "hmdb_splits")
    assert (part.dataset.name, part.names()) == ("hmdb51", every[:3])
    assert part.read("val1").classes == HMDB
    both = ListFolder.open(repository / "splits" / "base2novel_splits" / "hmdb_splits")
    assert both.read("novel_val").classes == ("kick ball", "kick")
    assert [line.path for line in part.read("val1").lines][1] == "b_(HQ)&;~@!+_kick.avi"
    assert "'kick ball' and 'kick' are swapped" in part.name_caveats(HMDB)[0]
    corrected = ListFolder.open(part.place, hmdb_names="corrected")
    assert corrected.read("val1").classes == ("kick", "kick ball", "run")
    assert "put right" in corrected.name_caveats(HMDB)[0]


def test_mistakes_with_folders(repository, tmp_path):
    with pytest.raises(UserError, match="no such folder of lists"):
        ListFolder.open(tmp_path / "nowhere")
    folder = ListFolder.open(repository, "hmdb51")
    with pytest.raises(UserError, match=r"no list val9.txt .* \(did you mean 'val\d'\?\); lists there: val1, val2"):
        folder.read("val9")
    with pytest.raises(UserError, match=r"no label file ucf_101_labels.csv or labels.csv for the list val1"):
        ListFolder.open(repository / "splits" / "hmdb_splits", "ucf101").read("val1")
    with pytest.raises(UserError, match=r"none of the lists that are needed is here \(val1, .*train1\); pass a"):
        wanted_lists(ListFolder.open(tmp_path, "hmdb51"), None)


def test_a_protocol_takes_its_lists(repository):
    folder = ListFolder.open(repository, "hmdb51")
    assert wanted_lists(folder, "few_shot")[0] == ["val1", "train1_few_shot_2"]
    assert wanted_lists(folder, "b2n") == (
        ["fs_base_s1_train", "base_val", "novel_val"],
        ["fs_base_s2_train", "fs_base_s3_train"],
    )
    assert wanted_lists(folder, "zero_shot") == (["val1", "val2"], ["val3"])
    assert wanted_lists(folder, "supervised") == (["val1"], ["train1"])


def test_lists_without_folder_prefix_are_the_same_videos_and_not_taken_twice(tmp_path):
    labels(tmp_path / "labels.csv", ("a",))
    for name in ("eval", "eval_filtered_OST"):
        put(tmp_path / f"{name}.txt", "x.mp4 0\n")
    assert wanted_lists(ListFolder.open(tmp_path), None)[0] == ["eval"]


def test_tables_are_lists_and_labels_and_notes_are_not(tmp_path):
    labels(tmp_path / "labels.csv", ("a", "b"))
    put(tmp_path / "splits.json", '{"schema": 1, "seeds": [1]}')
    put(tmp_path / "val.csv", "path,label\nx.mp4,a\n")
    put(tmp_path / "train.json", '[{"path": "y.mp4", "label": 1}]')
    put(tmp_path / "more.csv.gz", gzip.compress(b"video;class\nz.mp4;1\n"))
    folder = ListFolder.open(tmp_path)
    assert folder.names() == wanted_lists(folder, None)[0] == ["more", "train", "val"]
    assert [folder.read(name).lines[0].label for name in folder.names()] == [1, 1, 0]
    assert wanted_lists(folder, "supervised")[0] == ["train", "val"]
    with pytest.raises(UserError, match=r"none of the lists .* 'path label' lines, CSV or JSON; .*; found more, train"):
        wanted_lists(folder, "b2n")


def test_a_text_that_is_no_list_is_passed_over_and_a_list_with_mistakes_is_not(tmp_path):
    labels(tmp_path / "labels.csv", ("a",))
    put(tmp_path / "README.txt", "My lists\n\nMade in 2024\nby hand, for\n\ntests.\n")
    put(tmp_path / "train.txt", "x.mp4 0\ny.mp4\nz.mp4 0\n")
    put(tmp_path / "val.txt.gz", gzip.compress(b"x.mp4 0\n" * 99)[:-9])
    put(tmp_path / "test.csv", "path,lable\nx.mp4,0\n")
    folder = ListFolder.open(tmp_path)
    assert wanted_lists(folder, None)[0] == ["test", "train", "val"]
    with pytest.raises(UserError, match=r"README.txt:1:\d+: expected 'path label'"):
        folder.read("README")


def test_the_videos_of_a_folder_of_lists_are_in_it(tmp_path):
    labels(tmp_path / "l" / "labels.csv", ("a",))
    for name in ("l/val.txt", "l/videos/x.mp4", "x.mp4"):
        put(tmp_path / name, "x.mp4 0\n")
    inputs = find_listed(ListFolder.open(tmp_path / "l"), ["val"], None)
    assert (inputs.root, inputs.videos[0].path) == (tmp_path / "l", "videos/x.mp4")


def test_kept_lists_are_read_like_those_that_were_given(repository, tmp_path):
    folder = ListFolder.open(repository, "hmdb51")
    inputs = find_listed(folder, folder.names(), tmp_path / "videos")
    assert (inputs.dataset, inputs.classes) == ("hmdb51", HMDB)
    keep_lists(tmp_path, inputs.lists, inputs.dataset)
    kept = ListFolder.open(tmp_path / "lists")
    assert kept.dataset is folder.dataset
    assert kept.names() == folder.names()
    for name in kept.names():
        one, other = kept.read(name), folder.read(name)
        assert (one.classes, one.files) == (other.classes, other.files)
        assert [(line.path, line.label) for line in one.lines] == [(line.path, line.label) for line in other.lines]
    keep_lists(tmp_path, inputs.lists[:1], None)
    assert ListFolder.open(tmp_path / "lists").names() == ["val1"]
    keep_lists(tmp_path, (), None)
    assert not (tmp_path / "lists").exists()


def test_label_files_of_one_name_are_kept_apart(tmp_path):
    first = labels(tmp_path / "a" / "labels.csv", ("one",))
    second = labels(tmp_path / "b" / "labels.csv", ("two",))
    lists = [put(tmp_path / f"{name}.txt", f"{name}.mp4 0\n") for name in ("x", "y", "z")]
    for name in ("x", "y", "z"):
        put(tmp_path / f"{name}.mp4")
    inputs = find_inputs(lists, [first, second, first])
    keep_lists(tmp_path, inputs.lists, None)
    kept = ListFolder.open(tmp_path / "lists")
    assert [kept.read(name).classes for name in kept.names()] == [("one",), ("two",), ("one",)]
    assert len(list((tmp_path / "lists").iterdir())) == 6


def test_a_folder_of_others_is_not_replaced(tmp_path):
    put(tmp_path / "lists" / "precious.txt")
    swap_in(tmp_path / "lists", {}, "lists.json")
    with pytest.raises(UserError, match="was not written here"):
        swap_in(tmp_path / "lists", {"lists.json": b"{}"}, "lists.json")
    assert (tmp_path / "lists" / "precious.txt").exists()
    (tmp_path / "empty").mkdir()
    swap_in(tmp_path / "empty", {"lists.json": b"{}"}, "lists.json")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "lists", "lists.json", "precious.txt"]


def test_what_was_there_is_there_again_if_replacing_it_fails(tmp_path, monkeypatch):
    place, rename = tmp_path / "lists", Path.rename
    swap_in(place, {"m.json": b"old"}, "m.json")

    def refuse(source, target):
        if source.name.endswith(".tmp"):
            raise OSError(28, "No space left on device")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        swap_in(place, {"m.json": b"new"}, "m.json")
    assert [(path.name, path.read_bytes()) for path in place.iterdir()] == [("m.json", b"old")]
    assert list(tmp_path.iterdir()) == [place]


def test_the_folder_where_one_is_can_be_replaced(tmp_path, monkeypatch):
    swap_in(tmp_path / "lists", {"m.json": b"old"}, "m.json")
    monkeypatch.chdir(tmp_path / "lists")
    swap_in(Path(), {"m.json": b"new"}, "m.json")
    assert (tmp_path / "lists" / "m.json").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "lists"]


NAMES = ("kick ball", "plié", "sit, stand")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("l.csv", 'path,label\r\n"a, b.mp4",0\r\nc d.mp4,2\r\n'),
        ("l.csv", 'label,video\n"kick ball","a, b.mp4"\n"sit, stand",c d.mp4\n'),
        ("l.csv", '\ufefffile;x;label\na, b.mp4;9;0\nc d.mp4;9;"sit, stand"\n'),
        ("l.csv.gz", gzip.compress(b'video,label\n"a, b.mp4",0\nc d.mp4,2', mtime=0)),
        ("l.json", json.dumps([{"path": "a, b.mp4", "label": 0}, {"path": "c d.mp4", "label": "sit, stand"}])),
        ("l.json", json.dumps([{"video": "a, b.mp4", "label": "0"}, {"video": "c d.mp4", "label": 2, "more": []}])),
        ("l.json", json.dumps({"a, b.mp4": "kick ball", "c d.mp4": 2})),
    ],
)
def test_other_forms_of_lists(tmp_path, file, content):
    found = read_list(put(tmp_path / file, content), classes=NAMES)
    assert [(line.path, line.label) for line in found] == [("a, b.mp4", 0), ("c d.mp4", 2)]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems(tmp_path, end):
    for file, lines in (("l.txt", ("a.mp4 0", "b.mp4 1", "")), ("l.csv", ("path,label", "a.mp4,0", "b.mp4,1"))):
        found = read_list(put(tmp_path / file, end.join(lines)))
        assert [(line.path, line.label) for line in found] == [("a.mp4", 0), ("b.mp4", 1)]
    assert read_labels(put(tmp_path / "labels.csv", end.join(("id,name", "0,a", "1,b")))) == ["a", "b"]


def test_path_label_lines_may_be_called_csv(tmp_path):
    found = read_list(put(tmp_path / "val.csv", "a.mp4 0\nc d.mp4 2\n"), 3)
    assert [(line.path, line.label) for line in found] == [("a.mp4", 0), ("c d.mp4", 2)]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("l.csv", "path,label\na.mp4,\n", r"l.csv:2, column 2 \(label\): no label for 'a.mp4'"),
        ("l.csv", "label,path\n0,a.mp4\n9,b.mp4\n", r"l.csv:3, column 1 \(label\): label 9 is out of range"),
        ("l.csv", "path,label\na.mp4,kick bal\n", r"'kick bal' is not a number and no class .* mean 'kick ball'\?"),
        ("l.csv", "path,label\na, b.mp4,0\n", "l.csv:2: 3 cells where the header has 2; quote"),
        ("l.csv", "path,label\n,0\n", "l.csv:2: a video without a path"),
        ("l.csv", "youtube_id,time_start\nx,1\n", "l.csv:1: a list in CSV starts with a header"),
        ("l.csv", "path,label\n", "no videos in this list"),
        (
            "l.csv",
            'path,label\na.mp4,0\n"b.mp4,0\nc.mp4,0\n',
            r"l.csv:3: not CSV \(unexpected end of data\); is a quote",
        ),
        (
            "l.txt.gz",
            gzip.compress(b"a.mp4 0\n" * 99, mtime=0)[:-9],
            r"l.txt.gz: truncated or damaged \(.*\); fetch it again",
        ),
        ("l.txt.gz", gzip.compress(b"a.mp4 0\n", mtime=0)[:10] + b"\xff" * 30, "l.txt.gz: truncated or damaged"),
        ("l.json", '[{"path": "a.mp4"}]', r"l.json, entry 1 \(label\): no label for 'a.mp4'"),
        ("l.json", '{"a.mp4": 0,\n "b.mp4" 1}', r"l.json:2:10: not JSON"),
        ("l.json", '["a.mp4"]', r"a list in JSON is"),
        ("l.txt", "a.mp4,0\n", r"l.txt:1:8: expected 'path label'"),
        ("l.txt", "  a b.mp4   x  \n", r"l.txt:1:13: expected 'path label' with a number"),
        ("l.txt", "a.mp4 3\n", r"l.txt:1:7: label 3 is out of range: .* does the list count from 0\?"),
    ],
)
def test_mistakes_in_lists_are_told_with_their_place(tmp_path, file, content, message):
    with pytest.raises(UserError, match=message):
        read_list(put(tmp_path / file, content), classes=NAMES)


def test_own_data_names_classes_groups_and_splits(tmp_path):
    mine = put(tmp_path / "mine.csv", "path,label,group,split\nb.mp4,run,film 1,train\na.mp4,kick ball,film 2,Test\n")
    classes, lines = read_videos(mine)
    assert classes == ["kick ball", "run"]
    assert [(line.path, line.label, line.group) for line in lines] == [("b.mp4", 1, "film 1"), ("a.mp4", 0, "film 2")]
    for name in ("a.mp4", "b.mp4"):
        put(tmp_path / "v" / name)
    inputs = find_inputs([mine], root=tmp_path / "v")
    assert inputs.lists == ()
    assert [(v.uri, v.label, v.group, v.split) for v in inputs.videos] == [
        ("a.mp4", "kick ball", "film 2", "test"),
        ("b.mp4", "run", "film 1", "train"),
    ]
    with pytest.raises(UserError, match=r"its labels are numbers; --labels CSV"):
        read_videos(put(tmp_path / "n.csv", "path,label\na.mp4,0\n"))
    with pytest.raises(UserError, match=r"s.csv:2: split 'trian' \(did you mean 'train'\?\)"):
        find_inputs([put(tmp_path / "s.csv", "path,label,split\na.mp4,x,trian\n")], root=tmp_path / "v")


def test_several_own_files_are_their_splits(tmp_path):
    put(tmp_path / "a.mp4")
    put(tmp_path / "b.mp4")
    files = [
        put(tmp_path / "train.csv", "path,label\na.mp4,run\n"),
        put(tmp_path / "test.csv", "path,label\nb.mp4,clap\n"),
    ]
    inputs = find_inputs(files)
    assert inputs.classes == ("clap", "run")
    assert [(video.label, video.split) for video in inputs.videos] == [("run", "train"), ("clap", "test")]
    assert inputs.videos[0].group == "a"


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1)
NAMED = st.builds("".join, st.tuples(TEXT, st.sampled_from(["", "\u2028", "\u2029", "\n", '"', ", "]), TEXT))


@given(st.lists(st.tuples(TEXT, st.integers(0, 9)), min_size=1))
def test_what_is_written_as_a_list_is_read_again(tmp_path_factory, lines):
    path = put(tmp_path_factory.mktemp("l") / "l.txt", list_text(lines))
    assert [(line.path, line.label) for line in read_list(path)] == lines


@given(st.lists(NAMED, min_size=1, unique=True))
def test_what_is_written_as_a_label_file_is_read_again(tmp_path_factory, names):
    path = put(tmp_path_factory.mktemp("l") / "l.csv", labels_text(names))
    assert read_labels(path) == names
