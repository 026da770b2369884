"""Folders of lists: found in every layout, in small imitations of the published irregularities."""

from __future__ import annotations

import pytest

from pipelines.videos.list_choice import wanted_lists
from pipelines.videos.list_folder import ListFolder
from vlmodels.errors import UserError

HMDB = ("kick ball", "kick", "run")


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
    assert "are corrected" in corrected.name_caveats(HMDB)[0]


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


def test_a_damaged_index_of_kept_lists_is_named(tmp_path):
    for content in ("{", "[]"):
        (tmp_path / "lists.json").write_text(content)
        with pytest.raises(UserError, match=r"lists\.json: not readable"):
            ListFolder.open(tmp_path)
