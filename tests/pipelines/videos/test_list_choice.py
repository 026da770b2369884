"""The lists that a protocol needs, and the texts that are no lists."""

from __future__ import annotations

import gzip

import pytest

from pipelines.videos.list_choice import list_to_train, lists_to_test, wanted_lists
from pipelines.videos.list_folder import ListFolder
from tests.helpers.list_files import put, write_labels
from vlmodels.errors import UserError


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
    write_labels(tmp_path / "labels.csv", ("a",))
    for name in ("eval", "eval_filtered_OST"):
        put(tmp_path / f"{name}.txt", "x.mp4 0\n")
    assert wanted_lists(ListFolder.open(tmp_path), None)[0] == ["eval"]


def test_tables_are_lists_and_labels_and_notes_are_not(tmp_path):
    write_labels(tmp_path / "labels.csv", ("a", "b"))
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
    write_labels(tmp_path / "labels.csv", ("a",))
    put(tmp_path / "README.txt", "My lists\n\nMade in 2024\nby hand, for\n\ntests.\n")
    put(tmp_path / "train.txt", "x.mp4 0\ny.mp4\nz.mp4 0\n")
    put(tmp_path / "val.txt.gz", gzip.compress(b"x.mp4 0\n" * 99)[:-9])
    put(tmp_path / "test.csv", "path,lable\nx.mp4,0\n")
    folder = ListFolder.open(tmp_path)
    assert wanted_lists(folder, None)[0] == ["test", "train", "val"]
    with pytest.raises(UserError, match=r"README.txt:1:\d+: expected 'path label'"):
        folder.read("README")


@pytest.mark.parametrize(
    ("names", "train", "tests"),
    [
        (("train", "val"), "train", ("val",)),
        (("train1", "val2", "val3", "test"), "train1", ("val2", "val3")),
        (("training", "test", "validation"), "training", ("validation",)),
        (("mine",), None, ("val",)),
    ],
)
def test_lists_have_usual_names(tmp_path, names, train, tests):
    write_labels(tmp_path / "labels.csv", ("a",))
    for name in names:
        put(tmp_path / f"{name}.txt", "x.mp4 0\n")
    folder = ListFolder.open(tmp_path)
    assert (list_to_train(folder), lists_to_test(folder)) == (train, tests)


def test_a_data_set_has_lists_of_its_own(repository):
    folder = ListFolder.open(repository, "hmdb51")
    assert list_to_train(folder) is None
    assert lists_to_test(folder) == ("val1", "val2", "val3_filtered_OST")
