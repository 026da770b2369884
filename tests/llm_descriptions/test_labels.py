"""Label files, and matches between different spellings of a class name."""

from __future__ import annotations

import pytest

from llm_descriptions.errors import DescriptionError
from llm_descriptions.labels import match_names, read_labels


def test_label_files_are_read(tmp_path, shared_data):
    path = tmp_path / "labels.csv"
    path.write_bytes(b'\xef\xbb\xbfid,name\r\n0,"a, b"\r\n1,null\r\n')
    assert read_labels(path) == ("a, b", "null")
    sizes = {len(read_labels(csv)) for csv in (shared_data / "labels").glob("*.csv")}
    assert sizes == {160, 51, 26, 25, 200, 400, 600, 87, 174, 101, 50}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("0,run\n", "first line must be 'id,name'"),
        ("id,name\n", "lists no classes"),
        ("id,name\n0,run\n2,sit\n", "line 3: expected id 1, got '2'"),
        ("id,name\n0,run\n1,\n", "line 3: the class name is blank"),
        ("id,name\n0,run\n1\n", "line 3: the class name is blank"),
        ("id,name\n0,run\n1,run\n", "line 3: 'run' is already the name of id 0"),
    ],
)
def test_messages_about_label_files_name_the_line(tmp_path, content, reason):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DescriptionError, match=reason):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(DescriptionError, match="cannot read the class list"):
        read_labels(tmp_path / "absent.csv")


def test_names_match_in_other_spellings():
    known = ["brush hair", "Run", "run", "HandstandPushups"]
    wanted = ["brush_hair", "Run", "RUN", "HandStandPushups", "sit"]
    assert match_names(wanted, known) == {
        "brush_hair": "brush hair", "Run": "Run", "RUN": None, "HandStandPushups": "HandstandPushups", "sit": None,
    }  # fmt: skip
