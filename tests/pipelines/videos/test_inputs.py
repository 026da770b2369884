"""Videos of folders, of lists and of own CSV files, with their classes, groups and splits."""

from __future__ import annotations

import pytest

from pipelines.videos.inputs import find_inputs, find_listed
from pipelines.videos.list_files import read_videos
from pipelines.videos.list_folder import ListFolder
from pipelines.videos.uris import clip_id
from tests.helpers.list_files import put, write_labels
from vlmodels.errors import UserError


def test_listed_videos_are_found_with_or_without_folders(world):
    inputs = find_inputs([world / "val.txt"], [world / "labels.csv"])
    assert inputs.root == world.resolve()
    assert inputs.classes[0] == "Typing"
    found = {video.uri: (video.path, video.label, video.split) for video in inputs.videos}
    assert found["-b.avi"] == ("videos/-b.avi", inputs.classes[1], "val")
    assert found["v_Typing_g24_c04.avi"] == ("Typing/v_Typing_g24_c04.avi", "Typing", "val")
    assert found["a b #1 [x] & é.mp4"][1] == "plié"


def test_missing_and_ambiguous_videos_have_no_path(world):
    put(world / "x" / "twice.mp4")
    put(world / "y" / "twice.mp4")
    put(world / "more.txt", "-b.avi 1\ngone.mp4 0\ntwice.mp4 0\nclips/v_Typing_g24_c04.mp4 0\n")
    inputs = find_inputs([world / "more.txt"], [world / "labels.csv"])
    assert {video.uri: video.path for video in inputs.videos} == {
        "-b.avi": "videos/-b.avi",
        "gone.mp4": "",
        "twice.mp4": "",
        "clips/v_Typing_g24_c04.mp4": "Typing/v_Typing_g24_c04.avi",  # another folder, another suffix
    }


def test_several_lists_share_videos_and_join_classes_by_name(world):
    base, novel = put(world / "base.csv", "id,name\n0,plié\n1,Typing\n"), put(world / "novel.csv", "id,name\n0,New\n")
    put(world / "n.mp4")
    lists = [
        put(world / "s1.txt", "-b.avi 0\nv_Typing_g24_c04.avi 1\n"),
        put(world / "s2.txt", "v_Typing_g24_c04.avi 1"),
        put(world / "novel.txt", "n.mp4 0\n"),
    ]
    inputs = find_inputs(lists, [base, base, novel])
    assert inputs.classes == ("plié", "Typing", "New")
    splits = {video.uri: (video.label, video.split) for video in inputs.videos}
    assert splits["v_Typing_g24_c04.avi"] == ("Typing", "s1|s2")
    assert splits["n.mp4"] == ("New", "novel")


def test_mistakes_with_lists(world, tmp_path):
    labels, val = world / "labels.csv", world / "val.txt"
    with pytest.raises(UserError, match="2 label files for 3 lists"):
        find_inputs([val, val, val], [labels, labels])
    with pytest.raises(UserError, match="--labels CSV"):
        find_inputs([val])
    for name, content, what in (("36.zip", b"PK\x03\x04", "zip"), ("l.csv.bz2", b"BZh91AY", "bzip2")):
        with pytest.raises(UserError, match=f"{name}: .*{what}"):
            find_inputs([put(world / name, content)])
    own = put(world / "own.csv", "path,label,split\n-b.avi,Typing,foo\n")
    with pytest.raises(UserError, match=r"split 'foo'.*; use train, val or test"):
        find_inputs([own])
    with pytest.raises(UserError, match="no such folder or list"):
        find_inputs([world / "nowhere"])
    with pytest.raises(UserError, match="is a video"):
        find_inputs([world / "videos" / "-b.avi"], [labels])
    with pytest.raises(UserError, match=r"--root .*: no such folder"):
        find_inputs([val], [labels], root=world / "nowhere")
    with pytest.raises(UserError, match="none of the 1 listed videos"):
        find_inputs([put(world / "gone.txt", "gone.mp4 0\n")], [labels])
    with pytest.raises(UserError, match=r"b.txt:1: -b.avi is 'Typing' here but 'Laying.*in .*val.txt:3"):
        find_inputs([val, put(world / "b.txt", "-b.avi 0\n")], [labels])
    with pytest.raises(UserError, match="two lists are called val"):
        find_inputs([val, put(world / "other" / "val.txt", "-b.avi 1\n")], [labels], root=world)
    elsewhere = put(world / "other" / "val2.txt", "-b.avi 1\n")
    with pytest.raises(UserError, match="different folders; --root"):
        find_inputs([val, elsewhere], [labels])
    assert len(find_inputs([elsewhere], [labels], root=world).videos) == 1


def test_class_folders(tmp_path):
    put(tmp_path / "Walking" / "a.mp4")
    put(tmp_path / "Walking" / "deeper" / "b.MP4")
    put(tmp_path / "Sit & stay" / "#c.webm")
    put(tmp_path / "Sit & stay" / "notes.txt")
    put(tmp_path / ".cache" / "x.mp4")
    inputs = find_inputs([tmp_path])
    assert inputs.classes == ("Sit & stay", "Walking")
    assert [(video.uri, video.label, video.split) for video in inputs.videos] == [
        ("Sit & stay/#c.webm", "Sit & stay", ""),
        ("Walking/a.mp4", "Walking", ""),
        ("Walking/deeper/b.MP4", "Walking", ""),
    ]


def test_split_folders_flat_folders_and_own_output(tmp_path):
    put(tmp_path / "train" / "Walking" / "a.mp4")
    put(tmp_path / "val" / "Walking" / "b.mp4")
    put(tmp_path / "out" / "videolike.mp4")
    inputs = find_inputs([tmp_path], exclude=tmp_path / "out")
    assert [(v.label, v.split) for v in inputs.videos] == [("Walking", "train"), ("Walking", "val")]
    flat = find_inputs([tmp_path / "out"])
    assert (flat.classes, flat.videos[0].label) == ((), "")


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "elsewhere" / "a.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Walking").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
    assert [video.uri for video in find_inputs([tmp_path / "root"]).videos] == ["Walking/a.mp4"]


def test_folders_are_matched_to_the_label_file(tmp_path):
    labels = put(tmp_path / "labels.csv", "id,name\n0,brush hair\n1,Typing\n2,unused\n")
    put(tmp_path / "v" / "Brush_Hair" / "a.mp4")
    put(tmp_path / "v" / "Typing" / "a.mp4")
    inputs = find_inputs([tmp_path / "v"], [labels])
    assert inputs.classes == ("brush hair", "Typing", "unused")
    assert [video.label for video in inputs.videos] == ["brush hair", "Typing"]
    put(tmp_path / "v" / "Tiping" / "a.mp4")
    put(tmp_path / "v" / "xyz" / "a.mp4")
    with pytest.raises(UserError, match=r"'Tiping' \(did you mean 'Typing'\?\), 'xyz'"):
        find_inputs([tmp_path / "v"], [labels])


def test_empty_and_several_folders(tmp_path):
    with pytest.raises(UserError, match="no videos here"):
        find_inputs([tmp_path])
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="one folder, or one or more lists"):
        find_inputs([tmp_path, tmp_path / "a"])
    with pytest.raises(UserError, match="--root says"):
        find_inputs([tmp_path], root=tmp_path)


def test_the_videos_of_a_folder_of_lists_are_in_it(tmp_path):
    write_labels(tmp_path / "l" / "labels.csv", ("a",))
    for name in ("l/val.txt", "l/videos/x.mp4", "x.mp4"):
        put(tmp_path / name, "x.mp4 0\n")
    inputs = find_listed(ListFolder.open(tmp_path / "l"), ["val"], None)
    assert (inputs.root, inputs.videos[0].path) == (tmp_path / "l", "videos/x.mp4")


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


def test_backslashes_in_lists_are_separators(tmp_path):
    put(tmp_path / "v" / "wave" / "w1.mp4")
    put(tmp_path / "v" / "jump" / "w1.mp4")
    mine = put(tmp_path / "mine.csv", "path,label\nwave\\w1.mp4,wave\n.\\jump\\w1.mp4,jump\n")
    inputs = find_inputs([mine], root=tmp_path / "v")
    assert [(video.uri, video.path) for video in inputs.videos] == [("jump/w1.mp4",) * 2, ("wave/w1.mp4",) * 2]
    assert clip_id("wave/w1.mp4") == inputs.videos[1].clip_id


def test_drives_of_windows_are_said_or_refused(tmp_path):
    put(tmp_path / "v" / "wave" / "w1.mp4")
    mine = put(tmp_path / "mine.csv", "path,label\nD:\\data\\wave\\w1.mp4,wave\nD:\\data\\jump\\w9.mp4,jump\n")
    inputs = find_inputs([mine], root=tmp_path / "v")
    assert [video.path for video in inputs.videos] == ["", "wave/w1.mp4"]
    assert "2 paths with a drive or server of Windows (D:/data/jump/w9.mp4): 1 found" in inputs.understanding.lines()[1]
    with pytest.raises(UserError, match=r"none of the 2 .* a path with a drive or server of Windows\); set --root"):
        find_inputs([mine], root=put(tmp_path / "other" / "x.mp4").parent)


def test_labels_that_start_at_1_are_refused_and_a_flag_takes_them(tmp_path):
    labels = write_labels(tmp_path / "labels.csv", ("jump", "run", "wave", "spare"))
    for name in ("jump", "run", "wave"):
        put(tmp_path / name / "1.mp4")
    listed = put(tmp_path / "val.txt", "jump/1.mp4 1\nrun/1.mp4 2\nwave/1.mp4 3\n")
    with pytest.raises(UserError, match=r"3 of 3 videos .* labels seem to start at 1"):
        find_inputs([listed], [labels])
    bare = put(tmp_path / "test.txt", "jump/1.mp4 0\nrun/1.mp4 2\nwave/1.mp4 1\n")
    with pytest.raises(UserError, match=r"2 of 3 videos .* is it the label file of this list"):
        find_inputs([bare], [labels])
    assert find_inputs([bare], [labels], layout="list").videos[1].label == "wave"
    with pytest.raises(UserError, match="for lists there is --layout list"):
        find_inputs([bare], [labels], layout="classes")
    with pytest.raises(UserError, match="--layout list is for lists"):
        find_inputs([tmp_path], layout="list")


def test_columns_that_are_not_used_are_said(tmp_path):
    put(tmp_path / "a.mp4")
    mine = put(tmp_path / "mine.csv", "path,label,size,note,split\na.mp4,run,25,,train_256\n")
    inputs = find_inputs([mine])
    assert inputs.understanding.lines()[1] == "columns not used: size, note"
    mine.write_text("path,label\na.mp4,run\na.mp4,run\n")
    assert find_inputs([mine]).understanding.lines()[1] == "1 line with a video that the same list names before"
    assert inputs.videos[0].split == "train_256"


def test_a_listed_name_that_is_too_long_is_one_row(tmp_path):
    put(tmp_path / "a.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    mine = put(tmp_path / "mine.csv", f"path,label\na.mp4,run\n{'n' * 300}.mp4,run\nloop.mp4,run\n")
    assert [video.path for video in find_inputs([mine]).videos] == ["a.mp4", "", ""]


def test_a_name_that_no_file_can_have_is_one_line(tmp_path):
    long = "n" * 300
    mine = put(tmp_path / "mine.csv", "path,label\na.mp4,run\n")
    with pytest.raises(UserError, match="no such folder or list of videos"):
        find_inputs([long])
    with pytest.raises(UserError, match=r"--root n+: no such folder"):
        find_inputs([mine], root=long)
    with pytest.raises(UserError, match="File name too long"):
        find_inputs([mine], [long])
    with pytest.raises(UserError, match="no such folder of lists"):
        ListFolder.open(long)


def test_links_that_lead_nowhere_are_rows_of_a_folder(tmp_path):
    put(tmp_path / "run" / "1.mp4")
    (tmp_path / "run" / "0.mp4").symlink_to("0.mp4")
    videos = find_inputs([tmp_path]).videos
    assert [(video.uri, video.label, video.path) for video in videos] == [
        ("run/0.mp4", "run", ""),
        ("run/1.mp4", "run", "run/1.mp4"),
    ]
    assert videos[0].reason == "a link that leads to itself"
