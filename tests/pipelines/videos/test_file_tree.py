"""What lies below a folder: videos by suffix or first bytes, and all else counted by kind and named."""

from __future__ import annotations

import os

import pytest

from pipelines.videos.file_tree import MISSES, read_tree, tree_of
from tests.helpers.list_files import put
from tests.helpers.videofiles import write_video
from vlmodels.errors import UserError


def kinds(tree):
    return {one.kind: (one.count, one.example) for one in tree.passed_over}


def test_every_file_is_taken_or_counted_and_named(tmp_path):
    for name in ("a/1.MP4", "a/2.webm", "a/3.h264", "a/4.vob", "a/5.mxf", "a/6.M4V", "a/7.gif"):
        put(tmp_path / name)
    for name in ("a/1.json", "a/1.srt", "a/1.jpg", "b.txt", "a/2.mp4.part", "a/3.mp4.crdownload", "a/4.mp4.part-Frag7"):
        put(tmp_path / name)
    for name in ("a/.DS_Store", ".cache/x.mp4", "a/._1.mp4", "__MACOSX/a/1.mp4", "empty/notes.txt", "empty/in/n.txt"):
        put(tmp_path / name)
    (tmp_path / "bare").mkdir()
    tree = read_tree(tmp_path)
    assert [path[2] for path in tree.videos] == ["1", "2", "3", "4", "5", "6", "7"]
    assert kinds(tree) == {
        ".json": (1, "a/1.json"),
        ".srt": (1, "a/1.srt"),
        ".jpg": (1, "a/1.jpg"),
        ".txt": (3, "b.txt"),
        "unfinished downloads": (3, "a/2.mp4.part"),
        "hidden": (3, ".cache"),
        "in __MACOSX": (1, "__MACOSX"),
    }
    assert tree.without_videos == ("bare", "empty")
    assert tree.counts == {"a": 7}


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("flv", "flv1"), ("asf", "wmv2")),
        *(("mpeg", "mpeg2video"), ("vob", "mpeg2video"), ("mpegts", "mpeg2video"), ("mxf", "mpeg2video")),
        *(("h264", "libx264"), ("hevc", "libx265"), ("m4v", "mpeg4"), ("gif", "gif"), ("ivf", "libvpx")),
        *(("mov", "libx264"), ("mpeg2video", "mpeg2video"), ("nut", "mpeg4")),
    ],
)
def test_a_file_without_suffix_or_of_an_unknown_one_is_a_video_by_its_first_bytes(tmp_path, container, codec):
    if codec == "gif":
        put(tmp_path / "v", b"GIF89a@\x000\x00")
    else:
        written = write_video(tmp_path / f"made.{container}", 12, codec=codec, format=container)
        written.rename(tmp_path / "v")
    data = (tmp_path / "v").read_bytes()
    (tmp_path / "v").rename(tmp_path / "clip")
    put(tmp_path / "CLIP.MOD", data)
    put(tmp_path / "2024.05.01", data)
    assert read_tree(tmp_path).videos == ("2024.05.01", "CLIP.MOD", "clip")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LICENSE", "MIT\n"),
        ("noise", bytes(range(256))),
        ("song", b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00"),
        ("photo.heif", b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00"),
        ("still.webp", b"RIFF\x7e\x09\x00\x00WEBPVP8 \x72\x09\x00\x00"),
        ("sound.ogg", b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis"),
        ("index.ts", "export const answer = 42;\n"),
        ("empty", b""),
    ],
)
def test_other_files_are_no_videos_by_their_first_bytes(tmp_path, name, content):
    put(tmp_path / "a.mp4")
    put(tmp_path / name, content)
    tree = read_tree(tmp_path)
    assert tree.videos == ("a.mp4",)
    assert [(one.count, one.example) for one in tree.passed_over] == [(1, name)]


def test_a_transport_stream_and_an_animated_webp_are_videos(tmp_path):
    put(tmp_path / "a.webp", b"RIFF\x44\x75\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00")
    put(tmp_path / "b.ts", (b"G" + bytes(187)) * 3)
    put(tmp_path / "c", (bytes(4) + b"G" + bytes(187)) * 3)
    assert read_tree(tmp_path).videos == ("a.webp", "b.ts", "c")


def test_few_files_of_an_unknown_suffix_are_looked_into(tmp_path):
    for number in range(MISSES + 3):
        put(tmp_path / f"{number:04}.xyz", "no video")
    put(tmp_path / "a.mp4")
    assert kinds(read_tree(tmp_path)) == {".xyz": (MISSES + 3, "0000.xyz")}


def test_what_cannot_be_opened_is_one_row_and_stops_nothing(tmp_path):
    put(tmp_path / "jump" / "1.mp4")
    (tmp_path / "jump" / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "jump" / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "jump" / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "jump" / "pipe.mp4")
    tree = read_tree(tmp_path)
    assert tree.videos == ("jump/1.mp4",)
    assert tree.damaged == (
        ("jump/gone.mp4", "a link that leads nowhere"),
        ("jump/loop.mp4", "a link that leads to itself"),
        ("jump/pipe.mp4", "no regular file"),
    )
    assert kinds(tree) == {"broken links": (1, "jump/loop")}


def test_names_that_are_not_text(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"\xff.mp4")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    put(tmp_path / "a.mp4")
    tree = read_tree(tmp_path)
    assert tree.videos == ("a.mp4",)
    assert tree.damaged == ((r"\xff.mp4", "its name is not valid UTF-8; rename it"),)


def test_a_path_longer_than_systems_allow_is_passed_over(tmp_path):
    put(tmp_path / "a.mp4")
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 240, dir_fd=here)
            below = os.open("d" * 240, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    tree = read_tree(tmp_path)
    assert tree.videos == ("a.mp4",)
    assert [one.kind for one in tree.passed_over] == ["folders that cannot be read"]


def test_links_and_hidden_files(tmp_path):
    root = tmp_path / "r"
    for path in ("r/a.mp4", "r/.hidden/b.mp4", "r/.c.mp4", "other/d.MP4", "r/notes.txt"):
        put(tmp_path / path)
    (root / "linked").symlink_to(tmp_path / "other")
    (root / "again").symlink_to(root / "linked")
    (tmp_path / "other" / "back").symlink_to(root)
    tree = read_tree(root)
    assert tree.videos == ("a.mp4", "again/d.MP4")
    assert kinds(tree)["linked folders that were read already"] == (1, "linked/")
    assert read_tree(root, exclude=tmp_path / "other").videos == ("a.mp4",)


def test_a_folder_comes_before_links_to_it(tmp_path):
    put(tmp_path / "train" / "1.mp4")
    (tmp_path / "a").symlink_to("train")
    assert read_tree(tmp_path).videos == ("train/1.mp4",)


def test_folders_of_numbered_pictures_are_frame_folders(tmp_path):
    for name in ("wave/v1/img_00001.jpg", "wave/v1/img_00002.JPG", "wave/v2/1.png", "cover/front.jpg", "jump/1.jpg"):
        put(tmp_path / name)
    put(tmp_path / "jump" / "1.mp4")
    assert read_tree(tmp_path).frame_folders == ("wave/v1", "wave/v2")


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone cannot be read: No such file"):
        read_tree(tmp_path / "gone")


def test_files_of_a_store_are_told_apart_by_their_suffixes():
    tree = tree_of(["a/1.mp4", "a/2.MOV", "a/notes.txt", "b/3", "f/0001.jpg", "__MACOSX/a/1.mp4"])
    assert tree.videos == ("a/1.mp4", "a/2.MOV")
    assert kinds(tree) == {
        ".txt": (1, "a/notes.txt"),
        "without suffix": (1, "b/3"),
        ".jpg": (1, "f/0001.jpg"),
        "in __MACOSX": (1, "__MACOSX/a/1.mp4"),
    }
    assert (tree.frame_folders, tree.without_videos) == (("f",), ("__MACOSX", "b", "f"))
