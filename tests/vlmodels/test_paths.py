"""Names that no file can have are no files."""

from __future__ import annotations

import pytest

from vlmodels.paths import absolute, is_file, is_folder, is_there


@pytest.fixture(params=["too long", "link to itself"])
def impossible(request, tmp_path):
    if request.param == "too long":
        return tmp_path / ("X" * 300)
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop"


def test_impossible_names_are_no_files(impossible):
    assert not any(ask(impossible) for ask in (is_there, is_file, is_folder))
    assert absolute(impossible) == impossible
    assert absolute(impossible / "b") == impossible / "b"


def test_files_folders_and_links_are_what_they_are(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    assert is_there(tmp_path / "a")
    assert is_file(tmp_path / "link")
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "a")
    assert not is_file(tmp_path)
    assert absolute(tmp_path / "link") == tmp_path / "a"
