"""Arguments become a listing: files, folders, patterns, lists and addresses, each video once and in order."""

from __future__ import annotations

import os

import pytest

from pipelines.prediction.videos import list_videos
from vlmodels.errors import UserError
from vlmodels.span import Span


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with videos (empty files), lists and other things."""
    monkeypatch.chdir(tmp_path)
    for name in ("one.mp4", "sub/b.mp4", "sub/a.mp4", "sub/.hidden.mp4", "sub/notes.txt", "name [x].mp4", "=cmd.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*arguments, **settings):
    return [one.video for one in list_videos(arguments, **settings)]


def test_files_and_folders_in_order_each_once(folder):
    listing = list_videos(["one.mp4", "sub", "./sub/a.mp4", "nowhere.mp4", f"file://{folder}/one.mp4"])
    assert [one.video for one in listing] == ["one.mp4", "sub/a.mp4", "sub/b.mp4", "nowhere.mp4"]
    assert "2 in sub (passed over: 1 .txt, 1 hidden)" in listing.text
    assert "2 named more than once" in listing.text


def test_names_with_percent_in_a_folder_that_is_a_uri(folder):
    (folder / "sub" / "100%25.mp4").touch()
    listing = list_videos([f"file://{folder}/sub"])
    assert len(listing) == 3
    assert all(listing.path(one.video).is_file() for one in listing)


def test_files_alone_need_no_words(folder):
    assert not list_videos(["one.mp4", "name [x].mp4"]).text


def test_a_pattern_and_a_name_that_looks_like_one(folder):
    assert names("name [x].mp4") == ["name [x].mp4"]
    assert names("*.mp4") == ["=cmd.mp4", "name [x].mp4", "one.mp4"]
    assert names("**/[ab].mp4") == ["sub/a.mp4", "sub/b.mp4"]
    assert names("s*") == ["sub/a.mp4", "sub/b.mp4"]
    with pytest.raises(UserError, match=r"no videos in \*\.avi"):
        names("*.avi")


def test_parts_of_videos(folder):
    (folder / "list.csv").write_text("video,start,end\none.mp4,1.5,2\none.mp4,,\none.mp4,3,1\nsub/a.mp4,1.5,2\n")
    found = list(list_videos(["list.csv", "one.mp4 [4.0-5.0 s]", "sub/b.mp4"], span=Span(7, 8)))
    assert [(one.video, one.span) for one in found[:2]] == [("one.mp4", Span(1.5, 2)), ("one.mp4", Span(7, 8))]
    assert found[2].reason.startswith("wrong times")
    assert [one.span for one in found[3:]] == [Span(1.5, 2), Span(4, 5), Span(7, 8)]
    assert list_videos(["list.csv"]).failures() == [2]


def test_paths_of_a_list_are_relative_to_where_they_are(folder):
    (folder / "sub" / "own.txt").write_text("a.mp4\nlater.mp4\ns3://b/k.mp4\n/abs.mp4\n")
    assert names("sub/own.txt") == ["sub/a.mp4", "sub/later.mp4", "s3://b/k.mp4", "/abs.mp4"]
    (folder / "sub" / "here.txt").write_text("sub/a.mp4\none.mp4\n")
    assert names("sub/here.txt") == ["sub/a.mp4", "one.mp4"]
    (folder / "sub" / "one.mp4").touch()
    with pytest.raises(UserError, match="another file"):
        names("sub/here.txt")


@pytest.mark.parametrize(
    ("argument", "message"), [("no.csv", "no such list"), ("", "empty name"), ("empty", "no videos")]
)
def test_mistakes(folder, argument, message):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        names(argument)


def test_a_name_that_is_no_text_and_a_folder_of_pictures(folder):
    (folder / "frames").mkdir()
    for number in range(3):
        (folder / "frames" / f"{number}.jpg").touch()
    odd = os.fsdecode(b"\xff.mp4")
    (folder / odd).touch()
    assert names(odd, "frames") == [odd, "frames"]


def test_a_store(folder, s3):
    from pipelines.storage.place import Place

    for name in ("v/b.mp4", "v/a.mp4", "v/readme.md"):
        (Place.open(s3) / name).write(b"x")
    (Place.open(s3) / "list.txt").write(b"v/a.mp4\n")
    assert names(f"{s3}/v/") == [f"{s3}/v/a.mp4", f"{s3}/v/b.mp4"]
    assert names(f"{s3}/v/*b.mp4", f"{s3}/v/b.mp4") == [f"{s3}/v/b.mp4"]
    assert names(f"{s3}/list.txt") == [f"{s3}/v/a.mp4"]
    assert not list_videos([f"{s3}/v/a.mp4"]).is_handful
