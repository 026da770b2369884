"""Listed videos are found in other releases' layouts, and never in another video's place."""

from __future__ import annotations

import re
import unicodedata

import pytest

from pipelines.videos.locate import Locator, difference, is_windows_path, known_folders, may_be

UCF = "v_HandStandPushups_g01_c01.avi"


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("uri", "label", "there", "changed"),
    [
        ("val/x.mp4", "a", "val/x.mp4", ""),
        ("x.mp4", "a", "videos/x.mp4", ""),
        ("x.avi", "brush hair", "brush_hair/x.avi", "folder"),  # HMDB-51, UCF-101: archives have class folders
        ("brush_hair/x.avi", "brush hair", "x.avi", "folder"),
        ("val/x.mp4", "a", "x.mp4", "folder"),
        ("val/x.mp4", "a", "val/a/x.mp4", "folder"),
        ("x.mp4", "a", "validation/a/x.mp4", "folder"),
        ("val/x.mp4", "a", "val_256/x.mp4", "folder"),
        ("val/x.mp4", "a", "k400/val/a/x.mkv", "suffix"),
        ("x.webm", "a", "x.mp4", "suffix"),
        ("Run/X.avi", "Run", "run/x.AVI", "case"),
        (UCF, "HandstandPushups", f"HandstandPushups/{UCF.replace('Stand', 'stand')}", "case"),
        ("a_[x]#1(HQ)&;~@!+.avi", "a", "a/a_[x]#1(HQ)&;~@!+.avi", "folder"),
        ("plié/é.mp4", "plié", unicodedata.normalize("NFD", "plié/é.mp4"), "case"),  # as macOS unpacks it
    ],
)
def test_layouts(tmp_path, uri, label, there, changed, scan):
    locate = Locator(tree(tmp_path, there), known_folders([], [label, "a", "b"]))
    if scan:
        locate.scan()
    assert locate(uri, label) == (there, "")
    assert difference(uri, there) == changed


@pytest.mark.parametrize(
    ("uri", "label", "there", "expected"),
    [
        ("val/x.mp4", "a", ["train/x.mp4", "val/x.mp4"], "val/x.mp4"),
        ("val/x.mp4", "a", ["train/a/x.mp4", "val/a/x.mp4"], "val/a/x.mp4"),
        ("test/x.mp4", "a", ["train/x.avi", "test/x.avi"], "test/x.avi"),
        ("x.mp4", "a", ["a/x.mp4", "b/x.mp4"], "a/x.mp4"),
        ("a/x.mp4", "a", ["A/x.mp4", "b/x.mp4"], "A/x.mp4"),
        ("x.mp4", "a", ["X.mp4", "x.avi"], "X.mp4"),
        ("x.avi", "kick ball", ["kick/x.avi"], "kick/x.avi"),  # HMDB-51's names are swapped, its files are not
        ("part.1.mp4", "a", ["part.2.mp4", "d/part.1.mp4"], "d/part.1.mp4"),
    ],
)
def test_a_folder_or_prefix_decides_among_files_of_one_name(tmp_path, uri, label, there, expected):
    known = known_folders([], ["a", "b", "kick", "kick ball"])
    assert Locator(tree(tmp_path, *there), known)(uri, label).path == expected


@pytest.mark.parametrize(
    ("uri", "there", "reason"),
    [
        ("x.mp4", [], "no such file below"),
        ("x.mp4", ["c/x.mp4", "d/x.mp4"], r"2 files have its name, which is meant\? \(c/x.mp4, d/x.mp4\)"),
        ("val/x.mp4", ["train/x.mp4"], r"its name is elsewhere \(train/x.mp4\)"),
        ("a/1.mp4", ["b/1.mp4"], r"its name is elsewhere \(b/1.mp4\)"),  # another class
        ("subject1/1.mp4", ["subject2/1.mp4"], "its name is elsewhere"),  # a folder that lists write
        ("*.mp4", ["x.mp4"], "no such file below"),
        ("[x].mp4", ["x.mp4"], "no such file below"),
    ],
)
def test_what_is_nowhere_or_anyones(tmp_path, uri, there, reason):
    known = known_folders(["subject1/1.mp4", "subject2/1.mp4"], ["a", "b"])
    path, found_reason = Locator(tree(tmp_path, *there), known)(uri, "a")
    assert path == ""
    assert re.search(reason, found_reason)


def test_paths_that_contradict_each_other():
    known = known_folders(["Brush_Hair/1.mp4", "val/x/2.mp4"], ["Kick ball"])
    assert known >= {"brush hair", "x", "kick ball"}
    assert may_be("x/1.mp4", "1.mp4", known)
    assert may_be("val/1.mp4", "validation/kick_ball/1.mp4", known)
    assert may_be("x/1.mp4", "elsewhere/1.mp4", known)
    assert not may_be("x/1.mp4", "kick_ball/1.mp4", known)
    assert may_be("x/1.mp4", "kick_ball/1.mp4", known, "Kick Ball")
    assert not may_be("val/1.mp4", "train/1.mp4", known)


def test_paths_out_of_the_tree_and_absolute_ones(tmp_path):
    root = tree(tmp_path, "in/x.mp4", "out/y.mp4", "in/z.y4m") / "in"
    locate = Locator(root)
    assert locate(f"{root}/x.mp4").path == "x.mp4"
    assert difference(f"{root}/x.mp4", "x.mp4") == ""
    assert locate("../out/y.mp4").path == "../out/y.mp4"
    assert locate("z.y4m").path == "z.y4m"


def test_listed_names_that_cannot_be_opened_have_a_reason(tmp_path):
    root = tree(tmp_path, "x.mp4", "wave/v1/img_00001.jpg")
    (root / "loop.mp4").symlink_to("loop.mp4")
    locate = Locator(root)
    assert locate("x.mp4").path == "x.mp4"
    assert "300 bytes, and no file name is longer than 255" in locate(f"d/{'n' * 296}.mp4").reason
    assert locate("/".join(["d" * 200] * 30)).path == ""
    assert locate("nul\0.mp4").path == ""
    assert locate("loop.mp4").reason == "it is a link that leads nowhere"
    tree(tmp_path, "late.mp4.part")
    assert locate("late.mp4").reason == "its download is not finished (late.mp4.part)"
    assert locate("wave").reason == "it is a folder, not a video file, and holds no numbered pictures"
    assert locate("wave/v1").path == "wave/v1"


def test_paths_of_windows_are_found_by_their_names(tmp_path):
    locate = Locator(tree(tmp_path, "wave/w1.mp4", "jump/w1.mp4", "wave\\w2.mp4"), known_folders([], ["wave", "jump"]))
    assert locate("D:/data/wave/w1.mp4", "wave").path == "wave/w1.mp4"
    assert locate("//server/share/jump/w1.mp4", "jump").path == "jump/w1.mp4"
    assert locate("wave/w2.mp4", "wave").path == "wave\\w2.mp4"  # as some unpack archives of Windows
    assert "a drive or server of Windows" in locate("D:/data/wave/w9.mp4", "wave").reason
    assert not is_windows_path("s3://bucket/x.mp4")
    assert not is_windows_path("a:b.mp4")
