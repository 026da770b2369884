"""Lists and label files: every form and published quirk is read, mistakes are named with file and line."""

from __future__ import annotations

import gzip
import json

import pytest

from pipelines.videos.list_files import is_list, read_labels, read_list, unused_columns
from tests.helpers.list_files import LABEL_FILE, put
from vlmodels.errors import UserError

NAMES = ("kick ball", "plié", "sit, stand")


def test_label_files(world, tmp_path):
    names = ["Typing", "Laying something on the table, on its side", "plié"]
    assert read_labels(world / "labels.csv") == names
    assert read_labels(put(tmp_path / "l.csv.gz", gzip.compress(LABEL_FILE.encode()))) == names
    assert read_labels(put(tmp_path / "bom.csv", "\ufeff" + LABEL_FILE)) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r":1: a label file starts with the header"),
        ("0,Typing\n", r":1: a label file starts with the header"),
        ("id,name\n", "no classes"),
        ("id,name\n0,A\n2,B\n", ":3: id '2' where 1 should follow"),
        ("id,name\n0,A\n1,A\n", ":3: class name 'A' is there twice"),
        ("id,name\n0,A, with comma\n", ":2: 3 cells .* quote names"),
        (b"id,name\n0,\xff\xfe\n", "not a text file in UTF-8"),
        ('id,name\n0,"a\n1,b\n', ":2: not CSV .* is a quote left open"),
        ('id,name\n0,"a\n1,"b"\n', ":2: not CSV"),
        (f"id,name\n0,{'a' * 301}\n", ":2: a class name of 301 characters .* at most 300"),
    ],
)
def test_wrong_label_files(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_labels(put(tmp_path / "labels.csv", content))


def test_lists(world):
    lines = read_list(world / "val.txt", 3)
    assert [(line.path, line.label) for line in lines] == [
        ("a b #1 [x] & é.mp4", 2),
        ("-b.avi", 1),
        ("v_Typing_g24_c04.avi", 0),
    ]
    assert lines[1].where.endswith("val.txt:3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4 0\nb.mp4 9\n", r"list.txt:2:7: label 9 is out of range: .* 3 classes \(0 to 2\)"),
        ("a.mp4\n", r"list.txt:1:6: expected 'path label'"),
        ("a.mp4 Typing\n", r"list.txt:1:7: expected 'path label' with a number"),
        ("a.mp4 -1\n", r"list.txt:1:7: expected"),
        ("\n \n", "no videos in this list"),
    ],
)
def test_wrong_lists(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_list(put(tmp_path / "list.txt", content), 3)


def test_published_files_are_read(shared_data):
    assert len(read_labels(shared_data / "labels" / "ssv2_labels.csv")) == 174
    for path in sorted((shared_data / "labels").glob("*.csv")):
        assert len(read_labels(path)) > 20, path
    lists = [path for path in (shared_data / "splits").rglob("*") if path.is_file()]
    counts = {path.name: len(read_list(path)) for path in lists}
    assert counts["ZS_split1_K600_eval.txt.gz"] == 14_084  # no final newline
    assert counts["train_tiny.txt.gz"] == 60_000  # CRLF
    assert counts["val1.txt"] in {1530, 3783}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("l.csv", 'path,label\r\n"a, b.mp4",0\r\nc d.mp4,2\r\n'),
        ("l.csv", 'label,video\n"kick ball","a, b.mp4"\n"sit, stand",c d.mp4\n'),
        ("l.csv", '\ufefffile;x;label\na, b.mp4;9;0\nc d.mp4;9;"sit, stand"\n'),
        ("l.csv.gz", gzip.compress(b'video,label\n"a, b.mp4",0\nc d.mp4,2', mtime=0)),
        ("l.json", json.dumps([{"path": "a, b.mp4", "label": 0}, {"path": "c d.mp4", "label": "sit, stand"}])),
        ("l.json", json.dumps([{"video": "a, b.mp4", "label": "0"}, {"video": "c d.mp4", "label": 2, "more": []}])),
        ("l.json", json.dumps({"a, b.mp4": "kick ball", "c d.mp4": 2})),
    ],
)
def test_other_forms_of_lists(tmp_path, file, content):
    found = read_list(put(tmp_path / file, content), classes=NAMES)
    assert [(line.path, line.label) for line in found] == [("a, b.mp4", 0), ("c d.mp4", 2)]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_other_systems(tmp_path, end):
    for file, lines in (("l.txt", ("a.mp4 0", "b.mp4 1", "")), ("l.csv", ("path,label", "a.mp4,0", "b.mp4,1"))):
        found = read_list(put(tmp_path / file, end.join(lines)))
        assert [(line.path, line.label) for line in found] == [("a.mp4", 0), ("b.mp4", 1)]
    assert read_labels(put(tmp_path / "labels.csv", end.join(("id,name", "0,a", "1,b")))) == ["a", "b"]


def test_path_label_lines_may_be_called_csv(tmp_path):
    found = read_list(put(tmp_path / "val.csv", "a.mp4 0\nc d.mp4 2\n"), 3)
    assert [(line.path, line.label) for line in found] == [("a.mp4", 0), ("c d.mp4", 2)]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("l.csv", "path,label\na.mp4,\n", r"l.csv:2, column 2 \(label\): no label for 'a.mp4'"),
        ("l.csv", "label,path\n0,a.mp4\n9,b.mp4\n", r"l.csv:3, column 1 \(label\): label 9 is out of range"),
        ("l.csv", "path,label\na.mp4,kick bal\n", r"'kick bal' is not a number and no class .* mean 'kick ball'\?"),
        ("l.csv", "path,label\na, b.mp4,0\n", "l.csv:2: 3 cells where the header has 2; quote"),
        ("l.csv", "path,label\n,0\n", "l.csv:2: a video without a path"),
        ("l.csv", "youtube_id,time_start\nx,1\n", "l.csv:1: a list in CSV starts with a header"),
        ("l.csv", "path,label\n", "no videos in this list"),
        (
            "l.csv",
            'path,label\na.mp4,0\n"b.mp4,0\nc.mp4,0\n',
            r"l.csv:3: not CSV \(unexpected end of data\); is a quote",
        ),
        (
            "l.txt.gz",
            gzip.compress(b"a.mp4 0\n" * 99, mtime=0)[:-9],
            r"l.txt.gz: truncated or damaged \(.*\); fetch it again",
        ),
        ("l.txt.gz", gzip.compress(b"a.mp4 0\n", mtime=0)[:10] + b"\xff" * 30, "l.txt.gz: truncated or damaged"),
        ("l.json", '[{"path": "a.mp4"}]', r"l.json, entry 1 \(label\): no label for 'a.mp4'"),
        ("l.json", '{"a.mp4": 0,\n "b.mp4" 1}', r"l.json:2:10: not JSON"),
        ("l.json", '["a.mp4"]', r"a list in JSON is"),
        ("l.txt", "a.mp4,0\n", r"l.txt:1:8: expected 'path label'"),
        ("l.txt", "  a b.mp4   x  \n", r"l.txt:1:13: expected 'path label' with a number"),
        ("l.txt", "a.mp4 3\n", r"l.txt:1:7: label 3 is out of range: .* does the list count from 0\?"),
    ],
)
def test_mistakes_in_lists_name_their_place(tmp_path, file, content, message):
    with pytest.raises(UserError, match=message):
        read_list(put(tmp_path / file, content), classes=NAMES)


@pytest.mark.parametrize(
    ("file", "content", "unused"),
    [
        ("l.csv", "path,label,group,split\na.mp4,x,,\n", ()),
        ("l.csv", "Size;Path;label;Note;\n25;a.mp4;x;;\n", ("Size", "Note", "(unnamed)")),
        ("l.csv", "path,video,class,label\na,b,c,d\n", ("video", "class")),
        ("l.json", '[{"path": "a", "label": 1}, {"path": "b", "label": 1, "size": 25}]', ("size",)),
        ("l.json", '{"a.mp4": "x"}', ()),
        ("l.txt", "a.mp4 0\n", ()),
        ("l.csv", "a.mp4 0\n", ()),
    ],
)
def test_columns_that_nothing_reads_are_known(tmp_path, file, content, unused):
    assert unused_columns(put(tmp_path / file, content)) == unused


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("l.csv", "path,label,label\na.mp4,0,1\n", "l.csv:1: two columns are called 'label'"),
        (
            "l.csv",
            f"path,label\na.mp4,{'long ' * 4000}\n",
            "l.csv:2.*: a class name of 19999 characters .{5,90}; at most",
        ),
        ("l.json", "[" * 100_000, "l.json: JSON that is no list of videos"),
        ("l.json", '[{"path": "a.mp4", "label": ' + "9" * 5000 + "}]", "l.json: JSON that is no list of videos"),
        ("l.txt", f"a.mp4 {'9' * 5000}\n", r"l.txt:1:7: label 9+ is out of range"),
    ],
)
def test_hostile_lists_are_one_line(tmp_path, file, content, message):
    path = put(tmp_path / file, content)
    with pytest.raises(UserError, match=message):
        read_list(path, classes=NAMES)
    assert is_list(path)
