"""Checkpoints of a run: the last whole one is taken, and damage is named."""

from __future__ import annotations

import pytest
from pyarrow import fs

from pipelines.records.kept import DamagedCheckpointError, Kept


@pytest.fixture
def kept(tmp_path):
    """Two checkpoints, of three."""
    kept = Kept(fs.LocalFileSystem(), str(tmp_path / "kept"), "runs/a", local=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    for epoch in range(1, 4):
        (folder / "state.json").write_text(str(epoch))
        (folder / "optimizer.pt").write_bytes(bytes([epoch]) * 100)
        kept.add(folder)
    return kept


def newest(kept):
    damaged = []
    with kept.newest(damaged.append) as folder:
        return folder and (folder / "state.json").read_text(), damaged


def test_the_last_and_the_one_before_are_kept(kept, tmp_path):
    names = {found.name for found in (tmp_path / "kept").iterdir()}
    assert names == {"checkpoint-2", "checkpoint-2.json", "checkpoint-3", "checkpoint-3.json", "latest"}
    assert newest(kept) == ("3", [])
    assert newest(Kept(kept.filesystem, str(tmp_path / "no such"), "runs/b", local=True)) == (None, [])


DAMAGE = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["checkpoint-3/optimizer.pt", "checkpoint-3/state.json"])
def test_a_damaged_one_is_named_and_passed_over(kept, tmp_path, damage, file):
    DAMAGE[damage](tmp_path / "kept" / file)
    state, damaged = newest(kept)
    assert state == "2"
    assert damaged == [f"runs/a/{file} is {'missing' if damage == 'gone' else 'damaged'}"]
    (tmp_path / "kept" / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=rf"runs/a/{file} is \w+; start the run over with --fresh"):
        newest(kept)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\0\0", b"[" * 100_000, b'{"state.json": 1}'])
@pytest.mark.parametrize("file", ["checkpoint-3.json", "latest"])
def test_its_hashes_or_the_note_of_the_last_may_be_damaged(kept, tmp_path, file, content):
    (tmp_path / "kept" / file).write_bytes(content)
    state, damaged = newest(kept)
    assert (state, len(damaged)) == (("3", 0) if file == "latest" else ("2", 1))


def test_what_was_cut_off_while_it_was_copied_is_no_checkpoint(kept, tmp_path):
    (tmp_path / "kept" / "checkpoint-4").mkdir()
    (tmp_path / "kept" / "checkpoint-4" / "state.json").write_text("4")
    assert newest(kept) == ("3", [])
    (tmp_path / "folder" / "state.json").write_text("5")
    kept.add(tmp_path / "folder")
    assert newest(kept) == ("5", [])
