"""Copies of single files, folders and runs of a store."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.storage.cache import StoredFile, cache_key, cache_root, local_file, local_run, mirror
from pipelines.storage.place import Place
from vlmodels.errors import UserError


def test_a_single_file(s3, tmp_path):
    local = tmp_path / "a.sqlite"
    local.write_bytes(b"one")
    assert local_file(local) == local
    (Place.open(s3) / "a.sqlite").write(b"two")
    copy = local_file(f"{s3}/a.sqlite")
    assert (copy.name, copy.read_bytes()) == ("a.sqlite", b"two")
    before = copy.stat()
    assert local_file(f"{s3}/a.sqlite") == copy
    assert copy.stat() == before  # not fetched again
    with pytest.raises(UserError, match=rf"{s3}/b.sqlite: no such file"):
        local_file(f"{s3}/b.sqlite")


def test_a_run(s3):
    assert local_run("models:/a@b") == "models:/a@b"
    for name in ("run.json", "adapter.safetensors", "predictions.npz", "report/report.html"):
        (Place.open(s3) / name).write(b"1")
    copy = Path(local_run(s3))
    assert sorted(path.name for path in copy.iterdir()) == ["adapter.safetensors", "run.json"]
    with pytest.raises(UserError, match=rf"{s3}/report: no run there; give the folder of one run"):
        local_run(f"{s3}/report")


def test_copies_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    assert cache_root() == tmp_path / "cache"
    monkeypatch.setenv("VIDADAPT_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "vidadapt"
    assert cache_key("s3://b/a") != cache_key("s3://b/a", b"content") != cache_key("s3://b/c", b"content")


def stored(tmp_path, content=b"content", **changes):
    """A file in a store (here a folder), and where its copy goes."""
    source = Place.open(tmp_path / "store" / "file")
    Path(source.root).parent.mkdir(exist_ok=True)
    source.write(content)
    known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | changes
    return StoredFile(source, tmp_path / "copies" / "file", **known)


def copies(tmp_path):
    return sorted(path.name for path in (tmp_path / "copies").iterdir())


def test_a_file_is_copied_whole(tmp_path):
    file = stored(tmp_path)
    assert not file.is_there()
    file.fetch()
    assert file.is_there()
    assert file.target.read_bytes() == b"content"
    assert copies(tmp_path) == ["file"]


def test_many_threads_copy_a_file_once(tmp_path):
    file = stored(tmp_path)
    file.target.parent.mkdir()
    (file.target.parent / ".file.part").write_bytes(b"of a process that was killed")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: file.fetch(), range(64)))
    assert file.target.read_bytes() == b"content"
    assert copies(tmp_path) == ["file"]


def test_without_a_digest_size_and_time_are_compared(tmp_path):
    file = stored(tmp_path, sha256="", mtime_ns=10**18)
    file.fetch()
    assert file.target.stat().st_mtime_ns == 10**18
    assert file.is_there()
    assert not stored(tmp_path, sha256="", mtime_ns=2 * 10**18).is_there()
    assert not stored(tmp_path, b"changed!", sha256="", mtime_ns=10**18).is_there()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": 9}, "file has 7 bytes instead of 9; copy the file to the store again"),
        ({"sha256": "0" * 64}, "file is damaged: its SHA-256 is not the recorded one; copy the file to the store"),
    ],
)
def test_a_file_that_is_not_what_was_recorded_is_named_and_not_kept(tmp_path, changes, problem):
    with pytest.raises(UserError, match=problem):
        stored(tmp_path, **changes).fetch()
    assert copies(tmp_path) == []


def test_a_file_that_is_gone_is_named(tmp_path):
    file = stored(tmp_path)
    Path(file.source.root).unlink()
    with pytest.raises(UserError, match=r"store/file cannot be read: .*; run the same command again"):
        file.fetch()
    assert copies(tmp_path) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    file = StoredFile(Place.open(__file__), tmp_path / "copies" / "file", Path(__file__).stat().st_size, mtime_ns=1)
    with pytest.raises(UserError, match="copies/file cannot be written: No space left on device; make room, or set"):
        file.fetch()
    assert copies(tmp_path) == []


def test_a_folder_follows_the_store(s3, tmp_path):
    place = Place.open(s3)
    for name in ("a.json", "b.json", "c.bin", "lists/d.txt", "lists/e.txt"):
        (place / name).write(b"1")
    copy = tmp_path / "copy"
    (copy / "lists").mkdir(parents=True)
    (copy / "lists" / "gone.txt").write_text("not in the store any more")
    (copy / "b.json").write_text("own")
    assert mirror(place, copy, ["json"], inside=["lists"], skip=["b.json"])
    found = {path.relative_to(copy).as_posix(): path.read_text() for path in copy.rglob("*.*")}
    assert found == {"a.json": "1", "b.json": "own", "lists/d.txt": "1", "lists/e.txt": "1"}
    assert not mirror(place / "nothing", tmp_path / "empty", ["json"])
