"""Names that stand for train, validation or test, and those that only look like it."""

from __future__ import annotations

import pytest

from pipelines.videos.split_names import is_numbered_part, split_in_name, split_of_folder


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "train_256", "train_split1", "trainset")),
        *(
            (name, "train")
            for name in ("training_set", "train-frames", "trainlist01", "TrainSet", "videos_train", "train1")
        ),
        *((name, "train") for name in ("train.256x256", "train_rgb", "train 1", "Train A")),
        *((name, "validation") for name in ("val", "valid", "validation", "val_256", "Validation_Data", "dev")),
        *((name, "test") for name in ("test", "testing", "testing_data", "testlist02", "test_videos", "eval")),
        *(
            (name, None)
            for name in ("train station", "bullet train", "driving test", "trainval", "train_val", "testify")
        ),
        *((name, None) for name in ("k400_train", "valley", "devil", "trainer", "jump", "256", "")),
    ],
)
def test_a_folder_certainly_stands_for_a_part(name, part):
    assert split_of_folder(name) == part


def test_a_list_stands_for_a_part_by_one_word_of_its_name():
    assert [split_in_name(name) for name in ("train1_few_shot_2", "my val", "k400_train", "trainlist01")] == [
        "train",
        "validation",
        "train",
        "train",
    ]
    assert [split_in_name(name) for name in ("train_val", "mine", "ZS_split1_K600_eval")] == [None, None, None]


def test_a_number_of_a_piece_names_nothing():
    assert all(map(is_numbered_part, ("split1", "fold_2", "part 03")))
    assert not any(map(is_numbered_part, ("split", "3", "jump2", "c0", "")))
