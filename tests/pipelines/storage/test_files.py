"""Files that are whole whenever they are there."""

from __future__ import annotations

import pytest

from pipelines.storage.files import file_sha256, write_whole


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"

    def cut_off(part):
        part.write_text("ha")
        raise KeyboardInterrupt

    write_whole(path, lambda part: part.write_text("before"))
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, cut_off)
    assert path.read_text() == "before"
    write_whole(path, lambda part: part.write_text("after"))
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    assert file_sha256(tmp_path / "a") == "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"
