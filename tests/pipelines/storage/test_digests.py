"""Files are read once for each of their states, by all processes of a machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.storage.digests import KnownDigests
from pipelines.storage.files import file_sha256


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    for number in range(5):
        (tmp_path / f"{number}.arrow").write_bytes(bytes([number]))
    return tmp_path


def paths(folder):
    return sorted(folder.glob("*.arrow"))


class Counting:
    """Computes digests, and keeps the names of the files."""

    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(path.name)
        return file_sha256(path)


def test_a_file_is_read_again_only_after_a_change(folder):
    path, compute = folder / "1.arrow", Counting()
    for _ in range(2):
        assert KnownDigests(folder).sha256(path, compute=compute) == file_sha256(path)
    assert compute.read == ["1.arrow"]
    found = path.stat()
    path.write_bytes(b"x")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert KnownDigests(folder).unknown(paths(folder)) == paths(folder)
    assert KnownDigests(folder).sha256(path, compute=compute) == file_sha256(path)
    assert compute.read == ["1.arrow"] * 2
    KnownDigests(folder).sha256(path, again=True, compute=compute)
    assert compute.read == ["1.arrow"] * 3


def test_threads_and_objects_share_what_is_known(folder):
    compute = Counting()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: KnownDigests(folder).sha256(folder / "2.arrow", compute=compute), range(16)))
    assert compute.read == ["2.arrow"]


def test_all_are_read_at_once_and_what_is_gone_is_passed_over(folder):
    known = KnownDigests(folder)
    (folder / "3.arrow").unlink()
    known.read_all(paths(folder))
    assert known.unknown(paths(folder)) == []
    with pytest.raises(FileNotFoundError):
        known.sha256(folder / "3.arrow")


def test_without_a_place_to_remember_files_are_read(folder, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(folder / "1.arrow"))
    known = KnownDigests(folder)
    known.read_all(paths(folder))
    assert known.unknown(paths(folder)) == []
    assert KnownDigests(folder).unknown(paths(folder)) == paths(folder)
