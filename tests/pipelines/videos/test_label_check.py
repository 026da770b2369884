"""Labels of a list against class folders: shifted labels are refused, single mistakes are said."""

from __future__ import annotations

import pytest

from pipelines.videos.label_check import Labelled, check_labels
from vlmodels.errors import UserError

CLASSES = ("brush hair", "jump", "wave", "Apply Eye Makeup")


def labelled(*pairs):
    return [Labelled(path, CLASSES[label]) for path, label in pairs]


def test_labels_that_start_at_1_are_refused_with_their_number():
    videos = labelled(("jump/1.mp4", 2), ("v/Brush_Hair/2.mp4", 1), ("train/wave/3.mp4", 3), ("4.mp4", 0))
    with pytest.raises(UserError, match=r"disagree: 3 of 3 videos .* labels seem to start at 1.*--layout list"):
        check_labels(videos, CLASSES)


def test_labels_of_another_file_are_refused():
    with pytest.raises(
        UserError, match=r"2 of 2 videos .*\(jump/1.mp4: folder 'jump', label 'wave'\).*is it the label"
    ):
        check_labels(labelled(("jump/1.mp4", 2), ("wave/2.mp4", 1)), CLASSES)


def test_folders_that_agree_or_name_no_class_say_nothing():
    videos = labelled(("jump/1.mp4", 1), ("s1/2.mp4", 2), ("ApplyEyeMakeup/3.mp4", 3), ("wave/jump/4.mp4", 2))
    assert check_labels(videos, CLASSES) == []
    assert check_labels([Labelled("kick/a.mp4", "kick ball")], ("kick", "kick ball")) == []  # as HMDB-51 is published


def test_a_single_mistake_among_many_is_said():
    videos = labelled(*((f"jump/{number}.mp4", 1) for number in range(200)), ("jump/x.mp4", 2))
    (note,) = check_labels(videos, CLASSES)
    assert note.startswith("1 of 201 videos in class folders have another class in the list (jump/x.mp4:")
