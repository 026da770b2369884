"""Lists that ingest keeps, and lists and label files that we write: read as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.videos.inputs import find_inputs, find_listed
from pipelines.videos.kept_lists import keep_lists, labels_text, list_text, swap_in
from pipelines.videos.list_files import read_labels, read_list
from pipelines.videos.list_folder import ListFolder
from tests.helpers.list_files import put, write_labels
from vlmodels.errors import UserError


def test_kept_lists_are_read_like_those_that_were_given(repository, tmp_path):
    folder = ListFolder.open(repository, "hmdb51")
    inputs = find_listed(folder, folder.names(), tmp_path / "videos")
    assert (inputs.dataset, inputs.classes) == ("hmdb51", ("kick ball", "kick", "run"))
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
    first = write_labels(tmp_path / "a" / "labels.csv", ("one",))
    second = write_labels(tmp_path / "b" / "labels.csv", ("two",))
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
