"""Listed videos are found among ingested clips, and lists that contradict the ingested classes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.protocols.finder import Finder
from pipelines.protocols.split import Clip
from pipelines.videos.list_files import ListLine
from pipelines.videos.list_folder import VideoList
from vlmodels.errors import UserError

CLASSES = ("jump", "run", "wave", "spare")


def finder():
    paths = [(f"{label}/{number}.mp4", label) for label in CLASSES[:3] for number in range(2)]
    return Finder([Clip(f"id {path}", path, label, path, "", ok=True, error="") for path, label in paths])


def listed(*pairs):
    lines = tuple(ListLine(path, label, f"val.txt:{at}") for at, (path, label) in enumerate(pairs, 1))
    return VideoList("val", Path("val.txt"), Path("labels.csv"), CLASSES, lines)


def test_a_list_that_was_written_on_windows_finds_its_clips():
    found = finder().listed(listed((r"jump\0.mp4", 0), (r".\wave\0.mp4", 2)))
    assert [clip.uri for clip in found] == ["jump/0.mp4", "wave/0.mp4"]


def test_labels_that_start_at_1_are_refused_before_training():
    with pytest.raises(UserError, match=r"2 of 2 videos .* labels seem to start at 1.*ingest with these lists"):
        finder().listed(listed(("jump/0.mp4", 1), ("wave/1.mp4", 3)))
