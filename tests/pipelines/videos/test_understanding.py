"""What trees of folders mean: one reading is said in two lines, two readings are refused by the flag that chooses."""

from __future__ import annotations

import unicodedata

import pytest

from pipelines.videos.file_tree import read_tree, tree_of
from pipelines.videos.understanding import understand_folder, understand_lists
from tests.helpers.list_files import put
from vlmodels.errors import UserError


def understand(paths, classes=None, layout=None):
    return understand_folder(tree_of(paths.split()), "ROOT", classes, layout)


def meant(paths, classes=None, layout=None):
    """Return class and split of each folder."""
    found = understand(paths, classes, layout)
    return {folder: tuple(meaning) for folder, meaning in found.meanings.items()}


ONE_READING = {
    "class folders": ("jump/1.mp4 wave/2.mp4", {"jump": ("jump", ""), "wave": ("wave", "")}),
    "just videos": ("1.mp4 2.mp4", {"": ("", "")}),
    "decorated splits": (
        "train_256/jump/1.mp4 val_256/jump/2.mp4",
        {"train_256/jump": ("jump", "train_256"), "val_256/jump": ("jump", "val_256")},
    ),
    "other words": (
        "training_set/jump/1.mp4 valid/jump/2.mp4 testing/jump/3.mp4",
        {
            "training_set/jump": ("jump", "training_set"),
            "valid/jump": ("jump", "valid"),
            "testing/jump": ("jump", "testing"),
        },
    ),
    "capitals": ("TRAIN/jump/1.mp4 Test/jump/2.mp4", {"TRAIN/jump": ("jump", "TRAIN"), "Test/jump": ("jump", "Test")}),
    "Kinetics as published": (
        "train/jump/1.mp4 val/jump/2.mp4 test/3.mp4",
        {"train/jump": ("jump", "train"), "val/jump": ("jump", "val"), "test": ("", "test")},
    ),
    "loose videos beside class folders": (
        "jump/1.mp4 wave/2.mp4 test/3.mp4",
        {"jump": ("jump", ""), "wave": ("wave", ""), "test": ("", "test")},
    ),
    "splits in class folders": (
        "jump/train/1.mp4 jump/test/2.mp4 wave/train/3.mp4",
        {"jump/train": ("jump", "train"), "jump/test": ("jump", "test"), "wave/train": ("wave", "train")},
    ),
    "a folder around everything": (
        "data/train/jump/1.mp4 data/test/jump/2.mp4",
        {"data/train/jump": ("jump", "train"), "data/test/jump": ("jump", "test")},
    ),
    "a data set's folder around splits": (
        "ucf/train/jump/1.mp4 ucf/test/jump/2.mp4",
        {"ucf/train/jump": ("jump", "train"), "ucf/test/jump": ("jump", "test")},
    ),
    "splits of videos without classes": ("train/1.mp4 test/2.mp4", {"train": ("", "train"), "test": ("", "test")}),
    "folders below a class that has videos": (
        "jump/1.mp4 jump/more/2.mp4 wave/3.mp4",
        {"jump": ("jump", ""), "jump/more": ("jump", ""), "wave": ("wave", "")},
    ),
    "numbered folders below classes": (
        "run/person1/1.mp4 run/person2/1.mp4 walk/person1/1.mp4",
        {"run/person1": ("run", ""), "run/person2": ("run", ""), "walk/person1": ("walk", "")},
    ),
    "one name below all classes": (
        "run/clips/1.mp4 walk/clips/2.mp4",
        {"run/clips": ("run", ""), "walk/clips": ("walk", "")},
    ),
    "classes with a part's word": (
        "train_station/1.mp4 jump/2.mp4",
        {"train_station": ("train_station", ""), "jump": ("jump", "")},
    ),
}


@pytest.mark.parametrize(("paths", "meanings"), ONE_READING.values(), ids=ONE_READING)
def test_one_reading_is_taken(paths, meanings):
    assert meant(paths) == meanings


TWO_READINGS = {
    "a class called train": ("bus/1.mp4 car/2.mp4 train/3.mp4", "splits", "classes"),
    "class folders beside split folders": ("jump/1.mp4 train/jump/2.mp4 val/jump/3.mp4", "splits", "classes"),
    "data set and part": ("k400_train/jump/1.mp4 k400_val/jump/2.mp4", "splits", "classes"),
    "two levels": ("sports/golf/1.mp4 sports/tennis/2.mp4 music/piano/3.mp4", "classes", "nested"),
    "two levels in splits": ("train/sports/golf/1.mp4 train/sports/tennis/2.mp4", "splits", "nested"),
    "one folder of folders": ("stuff/jump/1.mp4 stuff/wave/2.mp4", "classes", "nested"),
    "folds": ("split1/jump/1.mp4 split2/jump/2.mp4", "classes", "nested"),
    "numbered parts": ("part_0/1.mp4 part_1/2.mp4", "classes", "flat"),
    "splits in one class only": ("jump/train/1.mp4 wave/2.mp4", "class-splits", "classes"),
    "a folder that is no known part": ("train/jump/1.mp4 holdout/jump/2.mp4", "splits", "classes"),
    "people with one action": ("s01/jump/1.mp4 s02/jump/2.mp4", "classes", "nested"),
    "splits of two data sets": ("hmdb/train/jump/1.mp4 ucf/train/run/2.mp4", "class-splits", "nested"),
    "a nested class called train": ("road/bus/1.mp4 road/train/2.mp4", "class-splits", "nested"),
}


@pytest.mark.parametrize(("paths", "first", "second"), TWO_READINGS.values(), ids=TWO_READINGS)
def test_two_readings_are_refused_and_a_flag_chooses(paths, first, second):
    with pytest.raises(UserError, match=rf"can be read in \d ways: .*--layout {first}\).*--layout {second}\)"):
        understand(paths)
    assert meant(paths, layout=first) != meant(paths, layout=second)


def test_a_layout_is_taken_as_said():
    paths = "bus/1.mp4 train/2.mp4"
    assert understand(paths, layout="classes").classes == ("bus", "train")
    assert understand(paths, layout="flat").classes == ()
    assert meant(paths, layout="splits") == {"bus": ("bus", ""), "train": ("", "train")}
    assert meant("k_train/a/1.mp4 k_val/a/2.mp4", layout="splits") == {
        "k_train/a": ("a", "k_train"),
        "k_val/a": ("a", "k_val"),
    }
    assert meant("train/jump/1.mp4 holdout/jump/2.mp4", layout="splits")["holdout/jump"] == ("jump", "holdout")
    assert meant("hmdb/train/jump/1.mp4", layout="nested") == {"hmdb/train/jump": ("jump", "train")}
    assert meant("jump/train/s1/1.mp4 run/train/s2/2.mp4")["run/train/s2"] == ("run", "train")
    assert meant("jump/a/1.mp4 wave/2.mp4 test/3.mp4")["jump/a"] == ("jump", "")
    nested = "train/sports/other/1.mp4 train/music/other/2.mp4 train/music/piano/3.mp4"
    assert understand(nested, layout="nested").classes == ("music/other", "piano", "sports/other")
    assert dict(understand(nested, layout="nested").splits) == {"train": 3}


def test_class_names_choose_between_readings():
    assert understand("bus/1.mp4 car/2.mp4 train/3.mp4", ("bus", "car", "train")).layout == "classes"
    assert understand("bus/1.mp4 test/2.mp4", ("bus", "test")).layout == "classes"
    assert understand("a/golf/1.mp4 a/jump_high/2.mp4 b/run/3.mp4", ("golf", "Jump high", "run")).layout == "nested"


def test_two_spellings_of_a_class_are_refused():
    with pytest.raises(UserError, match="'Brush_Hair' and 'brush hair'"):
        understand_folder(tree_of(["train/Brush_Hair/1.mp4", "val/brush hair/2.mp4"]), "ROOT")
    accents = [
        f"{split}/{unicodedata.normalize(form, 'plié')}/1.mp4" for split, form in (("train", "NFC"), ("val", "NFD"))
    ]
    with pytest.raises(UserError, match="accents alone"):
        understand_folder(tree_of(accents), "ROOT")
    assert understand("train/Jump/1.mp4 val/jump/2.mp4", layout="splits").classes == ("Jump", "jump")


def test_two_lines_say_what_is_taken_and_what_is_not(tmp_path):
    for name in ("train_256/jump/1.mp4", "train_256/wave/2.mp4", "val/jump/3.mp4", "test/4.mp4", "empty/notes.txt"):
        put(tmp_path / name)
    put(tmp_path / "train_256" / "jump" / "1.json")
    (tmp_path / "val" / "jump" / "gone.mp4").symlink_to("nowhere")
    assert understand_folder(read_tree(tmp_path), "ROOT").lines() == (
        "5 videos of 2 classes in ROOT, read as split folders of class folders: test 1, train_256 (train) 2, "
        "val (validation) 2",
        "2 files passed over: .json 1 (train_256/jump/1.json), .txt 1 (empty/notes.txt); 1 video without a class "
        "(test/4.mp4); no videos in empty/; 1 video set aside (val/jump/gone.mp4: a link that leads nowhere)",
    )


def test_a_single_class_is_named_as_its_folder_may_be_none():
    said = understand("train/videos/1.mp4 test/videos/2.mp4").lines()[0]
    assert said.startswith("2 videos of 1 class ('videos') in ROOT, read as split folders")


def test_all_spellings_of_a_class_are_named():
    said = understand_lists("ROOT", ("JUMP", "Jump", "jump", "wave"), ["train"], {}, ()).lines()[1]
    assert said.endswith("alone: 'JUMP', 'Jump' and 'jump'")


def test_a_tree_without_videos_says_what_is_there():
    with pytest.raises(UserError, match=r"no videos here or in its folders; .*; passed over: \.txt 1 \(a/b\.txt\)"):
        understand("a/b.txt")
    with pytest.raises(UserError, match=r"2 folders of numbered pictures \(jump/v2/, wave/v1/\)"):
        understand("wave/v1/img_00001.jpg wave/v1/img_00002.jpg jump/v2/1.png")


def test_lists_are_said_too():
    said = understand_lists("ROOT", ("a", "b"), ["train", "train|val", "val"], {"train": ("fps", "note")}, ["more"])
    assert said.lines() == (
        "3 videos of 2 classes in ROOT, read as listed: train 2, val (validation) 2",
        "columns not used: fps, note; more",
    )
    assert (
        "accents alone: 'Wave' and 'wave'" in understand_lists("ROOT", ("Wave", "wave"), ["train"], {}, ()).lines()[1]
    )
