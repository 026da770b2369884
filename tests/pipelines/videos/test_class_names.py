"""Class names for a prediction: typed as CSV, or read from a file; a known name that commas cut is noticed."""

from __future__ import annotations

import pytest

from pipelines.videos.class_names import cut_names, read_names
from tests.helpers.list_files import put
from vlmodels.errors import UserError

PUTTING = "Putting something, something and something on the table"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("clapping, walking a dog", ["clapping", "walking a dog"]),
        (f'"{PUTTING}",wave', [PUTTING, "wave"]),
        (f'wave, "{PUTTING}"', ["wave", PUTTING]),
        ('say "hi", wave', ['say "hi"', "wave"]),
        (" a ,, b,", ["a", "b"]),
        ("n" * 300 + ",b", ["n" * 300, "b"]),
    ],
)
def test_names_are_typed_as_csv(given, names):
    assert read_names(given) == names


def test_names_are_read_from_a_file(tmp_path):
    assert read_names(str(put(tmp_path / "l.csv", f'id,name\n0,"{PUTTING}"\n1,wave\n'))) == [PUTTING, "wave"]
    assert read_names(str(put(tmp_path / "l.txt", f"{PUTTING}\r\n\r\nwave\r\n"))) == [PUTTING, "wave"]
    assert read_names(str(put(tmp_path / "names", "a\nb"))) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('"a,b', "double quotes"),
        ("nowhere.csv", r"nowhere\.csv: no such file"),
        ("nowhere.txt", "no such file"),
        (" , ", "no class names"),
        ("", "no class names"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(UserError, match=message):
        read_names(given)


def test_a_folder_is_no_file_of_names(tmp_path):
    with pytest.raises(UserError, match="it is a folder"):
        read_names(str(tmp_path))


def test_a_known_name_in_pieces_is_found():
    known = (PUTTING, "wave", "sit, stand")
    assert list(cut_names(["putting something", "something and something on the table", "wave"], known)) == [PUTTING]
    assert list(cut_names([PUTTING, "stand", "sit"], known)) == []
