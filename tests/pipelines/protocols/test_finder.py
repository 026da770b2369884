"""Listed videos are found among ingested clips, and lists that contradict the ingested classes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.protocols.finder import Finder
from pipelines.protocols.split import Clip
from pipelines.videos.list_entries import ListLine
from pipelines.videos.list_folder import VideoList
from pipelines.videos.time_columns import Cut
from vlmodels.errors import UserError
from vlmodels.span import Span

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


def test_parts_of_a_video_are_found_by_their_times():
    names = ["wave/a.mp4 [0.0-2.0 s]", "wave/a.mp4 [2.0-4.5 s]", "wave/b.mp4"]
    find = Finder([Clip(f"id {name}", name, "wave", "a", "", ok=True, error="") for name in names])
    assert find("wave/a.mp4 [2.0-4.5 s]").uri == names[1]
    assert find("a [0.0-2.0 s]").uri == names[0]  # in captions, without folder and suffix
    assert find("other/a.mkv [0.0-2.0 s]").uri == names[0]
    assert find("wave/a.mp4") is None
    assert find("wave/b.mp4 [0.0-2.0 s]") is None
    lines = (ListLine("wave/a.mp4", 0, "l:1", cut=Cut(Span(2, 4.5))), ListLine("wave/b.mp4", 0, "l:2"))
    found = find.listed(VideoList("val", Path("val.txt"), Path("labels.csv"), ("wave",), lines))
    assert [clip.uri for clip in found] == names[1:]
