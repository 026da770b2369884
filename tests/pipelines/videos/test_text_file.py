"""Texts of lists: plain, packed or in UTF-16, and never larger than a limit."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from pipelines.videos.text_file import read_text
from tests.helpers.list_files import put
from vlmodels.errors import UserError


def test_texts_of_other_systems(tmp_path):
    for content in ("\ufeffa é\r\nb\r", "a é\nb\n"):
        assert read_text(put(tmp_path / "l.txt", content)) == "a é\nb\n"
    assert read_text(put(tmp_path / "l.txt.gz", gzip.compress(b"a") + gzip.compress(b"b"))) == "ab"
    assert read_text(put(tmp_path / "u.csv", "a é\r\n".encode("utf-16"))) == "a é\n"


def test_a_small_file_that_grows_is_refused_before_it_is_read_whole(tmp_path):
    bomb = put(tmp_path / "l.csv.gz", gzip.compress(bytes(40 << 20)))
    with pytest.raises(UserError, match=r"l\.csv\.gz: more than 2 MiB once unpacked"):
        read_text(bomb, largest=2 << 20)
    with pytest.raises(UserError, match=r"more than 1 MiB, too much for a list"):
        read_text(put(tmp_path / "l.csv", bytes(3 << 20)), largest=1 << 20)
    assert len(read_text(put(tmp_path / "fits.gz", gzip.compress(b"a" * 1000)), largest=1000)) == 1000


def test_other_files_are_named(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("l.csv", "path,label\n")
    with pytest.raises(UserError, match="a zip archive or an Excel file"):
        read_text(put(tmp_path / "l.csv", archive.getvalue()))
    with pytest.raises(UserError, match="packed with xz"):
        read_text(put(tmp_path / "l.txt", b"\xfd7zXZ\x00"))
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        read_text(put(tmp_path / "l.txt", b"\xff\xfa"))
    with pytest.raises(UserError, match="Is a directory"):
        read_text(tmp_path)
