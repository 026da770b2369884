"""Lists without labels: paths on lines, CSV with and without times, and what published lists have behind a path."""

from __future__ import annotations

import pytest

from pipelines.videos.unlabelled import is_unlabelled_list, read_unlabelled
from vlmodels.errors import UserError
from vlmodels.span import Span


def read(tmp_path, name, text, times=None):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(line.path, line.cut.span or line.cut.problem or None) for line in read_unlabelled(tmp_path / name, times)]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.txt", "a b.mp4\r\n\r\nsub/ü 1\n", [("a b.mp4", None), ("sub/ü 1", None)]),
        ("a.txt", "a b.mp4 3\nc.avi 12\n", [("a b.mp4", None), ("c.avi", None)]),
        ("a.txt", "take 1\nc.avi 12\n", [("take 1", None), ("c.avi 12", None)]),
        ("a.txt", "a.mp4 [1.0-2.5 s]\n", [("a.mp4", Span(1, 2.5))]),
        ("a.csv", b'\xef\xbb\xbf"video"\n"a, b.mp4"\n', [("a, b.mp4", None)]),
        ("a.csv", "video , start,end\n a.mp4 ,0.5,2\nb.mp4,,\n", [("a.mp4", Span(0.5, 2)), ("b.mp4", None)]),
        ("a.csv", "path;label\na.mp4;walk\n", [("a.mp4", None)]),
        ("a.csv", "file,start_frame,end_frame\na.mp4,3,9\n", [("a.mp4", Span(3, 9, "frames"))]),
        ("a.csv", "video,start,end\na.mp4,3.0,1.0\n", [("a.mp4", "wrong times: its end 1 is not after its start 3")]),
    ],
)
def test_the_videos_of_a_list(tmp_path, name, text, found):
    assert read(tmp_path, name, text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n0,walk\n", "no column of videos"),
        ("video,start,end\na.mp4,1,2\n", "--times"),
        ("video,start\na.mp4,1\n", "other end"),
        ("video,path,video\na,b,c\n", "two columns"),
        ("video,end\n", "other end"),
        ("video,label\n", "no videos"),
        ("video,label\na.mp4\n", "1 cells"),
        ("video,label\n,walk\n", "row 1 has no video"),
        ("video,fps\na,nan\n", "frames per second"),
        (b"PK\x03\x04", "zip"),
        (b"video,x\n\xff\xfe,1", "UTF-8"),
    ],
)
def test_mistakes_in_a_list(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "a.csv", text)


def test_whole_numbers_are_what_the_user_says(tmp_path):
    text = "video,start,end\na.mp4,1,2\n"
    assert read(tmp_path, "a.csv", text, "frames") == [("a.mp4", Span(1, 2, "frames"))]
    assert read(tmp_path, "a.csv", text, "ignore") == [("a.mp4", None)]


def test_lists_are_known_by_their_names():
    assert all(map(is_unlabelled_list, ("a.TXT", "b.csv.gz", "c.tsv")))
    assert not any(map(is_unlabelled_list, ("a.mp4", "txt", "a.json")))
