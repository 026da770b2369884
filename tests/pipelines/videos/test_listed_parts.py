"""Lists of parts and of frame folders: each row is a clip, and files that are cut already are not cut again."""

from __future__ import annotations

import json

import pytest

from pipelines.videos.inputs import find_inputs
from tests.helpers.list_files import put
from vlmodels.errors import UserError
from vlmodels.span import Span

LABELS = "id,name\n0,wave\n1,jump\n"


def found(path, **how):
    return {video.uri: video for video in find_inputs([path], **how).videos}


def test_every_row_is_a_clip_of_its_own(tmp_path):
    put(tmp_path / "wave" / "a.mp4")
    mine = put(tmp_path / "l.csv", "path,label,start_s,end_s,note\nwave/a.mp4,wave,0,2,\nwave/a.mp4,jump,3,5.5,x\n")
    inputs = find_inputs([mine])
    assert [(video.uri, video.path, video.label, video.span) for video in inputs.videos] == [
        ("wave/a.mp4 [0.0-2.0 s]", "wave/a.mp4", "wave", Span(0, 2)),
        ("wave/a.mp4 [3.0-5.5 s]", "wave/a.mp4", "jump", Span(3, 5.5)),
    ]
    assert len({video.clip_id for video in inputs.videos}) == 2
    assert {video.group for video in inputs.videos} == {"wave/a"}  # they stay together in own splits
    said = inputs.understanding.lines()[1]
    assert "columns not used: note" in said
    assert "2 clips cut from 1 video by times in seconds" in said


def test_times_may_be_ignored(tmp_path):
    put(tmp_path / "a.mp4")
    mine = put(tmp_path / "l.csv", "path,label,start,end\na.mp4,wave,3,5\na.mp4,wave,6,8\n")
    assert list(found(mine, times="ignore")) == ["a.mp4"]


def test_a_wrong_row_is_set_aside_alone(tmp_path):
    put(tmp_path / "a.mp4")
    mine = put(tmp_path / "l.csv", "path,label,start_s,end_s\na.mp4,wave,8,3\na.mp4,wave,3,8\na.mp4,wave,,\n")
    videos = found(mine)
    assert {uri: video.reason for uri, video in videos.items()} == {
        "a.mp4 [8-3]": "wrong times: its end 3 is not after its start 8",
        "a.mp4 [3.0-8.0 s]": "",
        "a.mp4": "",
    }


def test_official_lists_of_kinetics(tmp_path):
    """Names without suffix, files that are cut already by their names, and whole ones that are cut here."""
    put(tmp_path / "v" / "wave" / "aaaaaaaaaaa_000010_000020.mp4")
    put(tmp_path / "v" / "wave" / "-bbbbbbbbb-.mp4")
    put(tmp_path / "v" / "wave" / "CCCCCCCCCCC.mp4")
    rows = ("aaaaaaaaaaa,10,20", "-bbbbbbbbb-,5,15", "ccccccccccc,0,10", "ddddddddddd,0,10")
    text = "".join(
        f"wave,{row},{split}\n" for row, split in zip(rows, ("train", "validate", "test", "train"), strict=True)
    )
    mine = put(tmp_path / "k.csv", f"label,youtube_id,time_start,time_end,split\n{text}")
    inputs = find_inputs([mine], root=tmp_path / "v")
    videos = {video.uri.split(" ")[0]: video for video in inputs.videos}
    assert videos["aaaaaaaaaaa"].span is None
    assert videos["aaaaaaaaaaa"].path == "wave/aaaaaaaaaaa_000010_000020.mp4"
    assert videos["-bbbbbbbbb-"].span == Span(5, 15)
    assert videos["ccccccccccc"].path == ""  # names of YouTube differ in case
    assert "no such file" in videos["ddddddddddd"].reason
    assert "1 file cut already, by their names" in inputs.understanding.lines()[1]


@pytest.mark.parametrize(("times", "cut"), [("10,20", None), ("0,10", Span(0, 10)), ("2,5", Span(2, 5))])
def test_a_file_whose_name_holds_its_times_is_not_cut_twice(tmp_path, times, cut):
    put(tmp_path / "x_000010_000020.mp4")
    mine = put(tmp_path / "l.csv", f"path,label,time_start,time_end\nx_000010_000020.mp4,wave,{times}\n")
    (video,) = found(mine).values()
    assert (video.span, video.reason) == (cut, "")


def test_times_that_a_cut_file_may_not_have_are_set_aside(tmp_path):
    put(tmp_path / "x_000010_000020.mp4")
    mine = put(tmp_path / "l.csv", "path,label,time_start,time_end\nx_000010_000020.mp4,wave,12,15\n")
    (video,) = found(mine).values()
    assert "by its name the file holds 10-20 s" in video.reason


def test_parts_of_one_video_in_two_groups_are_refused(tmp_path):
    put(tmp_path / "a.mp4")
    mine = put(tmp_path / "l.csv", "path,label,group,start_s,end_s\na.mp4,wave,x,0,1\na.mp4,wave,y,2,3\n")
    with pytest.raises(UserError, match=r"clips of a\.mp4 are in the groups 'x' and 'y'"):
        find_inputs([mine])


def test_parts_behind_the_names_of_a_plain_list(tmp_path):
    put(tmp_path / "a.mp4")
    mine = put(tmp_path / "l.txt", "a.mp4 [3.0-8.0 s] 0\na.mp4 [frames 5-9] 1\na.mp4 1\n")
    videos = found(mine, labels=[put(tmp_path / "labels.csv", LABELS)])
    assert [video.span for video in videos.values()] == [None, Span(3, 8), Span(5, 9, "frames")]


def frames(folder, count):
    for number in range(1, count + 1):
        put(folder / f"img_{number:05d}.jpg", "x")


def test_a_list_of_frame_folders(tmp_path):
    frames(tmp_path / "wave" / "v 1", 20)
    frames(tmp_path / "jump" / "v2", 20)
    frames(tmp_path / "jump" / "v3", 20)
    mine = put(tmp_path / "l.txt", "wave/v 1 20 0\njump/v2 21 1\njump/v3 40 1\n")
    inputs = find_inputs([mine], [put(tmp_path / "labels.csv", LABELS)])
    assert [(video.uri, video.path, video.reason) for video in inputs.videos] == [
        ("jump/v2", "jump/v2", ""),
        ("jump/v3", "jump/v3", "truncated: its list says 40 frames, the folder has 20"),
        ("wave/v 1", "wave/v 1", ""),
    ]
    said = inputs.understanding.lines()[1]
    assert "1 frame folder with other numbers of pictures than listed (jump/v2: its list says 21 frames" in said


def test_a_list_of_parts_of_frame_folders(tmp_path):
    frames(tmp_path / "v1", 20)
    mine = put(tmp_path / "l.txt", "v1 0 10 0\nv1 10 10 1\n")
    videos = found(mine, labels=[put(tmp_path / "labels.csv", LABELS)])
    assert [video.span for video in videos.values()] == [Span(0, 10, "frames"), Span(10, 20, "frames")]


def test_frames_per_second_are_those_of_the_list_or_of_the_user(tmp_path):
    frames(tmp_path / "v1", 3)
    frames(tmp_path / "v2", 3)
    mine = put(tmp_path / "l.csv", "path,label,fps\nv1,wave,12\nv2,wave,\n")
    assert [video.fps for video in found(mine, fps=25).values()] == [12, 25]
    with pytest.raises(UserError, match="'x' is no frames per second"):
        find_inputs([put(tmp_path / "m.csv", "path,label,fps\nv1,wave,x\n")])


def test_folders_of_frame_folders_are_videos(tmp_path):
    for name in ("wave/v1", "wave/v2", "jump/v1"):
        frames(tmp_path / name, 3)
    inputs = find_inputs([tmp_path])
    assert [(video.uri, video.label) for video in inputs.videos] == [
        ("jump/v1", "jump"),
        ("wave/v1", "wave"),
        ("wave/v2", "wave"),
    ]
    assert inputs.understanding.lines()[1] == "3 folders of numbered pictures, each taken as a video"


def test_frame_folders_beside_video_files_are_named(tmp_path):
    put(tmp_path / "wave" / "a.mp4")
    frames(tmp_path / "wave" / "a_frames", 3)
    inputs = find_inputs([tmp_path])
    assert [video.uri for video in inputs.videos] == ["wave/a.mp4"]
    assert "1 folder of numbered pictures not taken beside video files" in inputs.understanding.lines()[1]


def test_both_ends_in_one_value_of_json(tmp_path):
    """As in the lists of ActivityNet."""
    put(tmp_path / "a.mp4")
    entries = [
        {"path": "a.mp4", "label": "wave", "segment": [0.5, 2]},
        {"path": "a.mp4", "label": "x", "segment": [3, 9]},
    ]
    inputs = find_inputs([put(tmp_path / "l.json", json.dumps(entries))])
    assert [video.span for video in inputs.videos] == [Span(0.5, 2), Span(3, 9)]
    assert "not used" not in inputs.understanding.lines()[1]


@pytest.mark.parametrize("line", ["a.mp4 3 1", "a.mp4 0 3 1"])
def test_several_numbers_behind_a_video_file_may_be_labels_and_are_refused(tmp_path, line):
    put(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"l\.txt:1: more than one number behind 'a\.mp4'"):
        found(put(tmp_path / "l.txt", f"{line}\n"), labels=[put(tmp_path / "labels.csv", LABELS)])
