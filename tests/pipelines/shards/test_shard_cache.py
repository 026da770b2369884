"""Data in a store: small files are copied at once, shards when they are read, each once and whole."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from pipelines.shards import shard_cache
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
from pipelines.shards.shard_cache import ShardCache, check_readable
from pipelines.storage.place import Place
from tests.helpers.ingesting import in_process
from vlmodels.errors import UserError

ROOT = Path(__file__).parents[3]
Disk = namedtuple("Disk", "total used free")  # noqa: PYI024  # as shutil's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve clips of two classes and two shapes; tests only read it."""
    root = tmp_path_factory.mktemp("ingested")
    for number in range(12):
        path = root / "videos" / f"class {number % 2}" / f"{'wide' if number % 5 == 0 else 'v'}_{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number, 1, 2]))
    with in_process() as here:
        here.ingest(root / "videos", root / "out")
    (root / "out" / "lists").mkdir()
    (root / "out" / "lists" / "kept.txt").write_text("a 0\n")
    (root / "out" / "captions.json").write_text("{}")
    return root / "out"


def copied(folder, uri):
    place = Place.open(uri)
    fs.copy_files(str(folder), place.root, fs.LocalFileSystem(), place.filesystem)
    return place


@pytest.fixture
def uri(folder, s3):
    copied(folder, f"{s3}/data set")
    return f"{s3}/data set"


@pytest.fixture
def reads(uri, s3_server):
    """Return the names of the files that were read in the store since the last call, in order."""
    before = 0

    def read():
        nonlocal before
        requests = s3_server.requests(uri)
        found = [key.rpartition("/")[2] for method, key in requests[before:] if method == "GET"]
        before = len(requests)
        return [name for name in found if name != "index.json"]  # which tells whether the copy is current

    read()  # what others read
    return read


def clips(store):
    return [row["clip_id"] for row in store.manifest.to_pylist() if row["status"] == "ok"]


def shard_files(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_a_data_set_in_a_store_is_the_one_that_was_copied(uri, folder, reads):
    here, there = ClipStore(folder), ClipStore(uri)
    assert (there.uri, there.name, there.digest, there.shape) == (uri, "data set", here.digest, here.shape)
    assert (here.uri, here.name) == (str(folder), "out")
    assert there.manifest.equals(here.manifest)
    assert sorted(reads()) == ["captions.json", "kept.txt", "manifest.parquet"]
    assert (there.folder / "lists" / "kept.txt").read_text() == "a 0\n"
    assert shard_files(there.folder) == []
    for clip in clips(here):
        assert here.place(clip) == there.place(clip)
        assert np.array_equal(here.frames(clip), there.frames(clip))
        assert not there.frames(clip).flags.owndata
    assert shard_files(there.folder) == shard_files(folder)
    assert sorted(reads()) == shard_files(folder)
    there.verify()


def test_only_what_is_read_is_fetched_and_once(uri, reads):
    store = ClipStore(uri)
    clip = clips(store)[0]
    shard, _ = store.place(clip)
    assert not store.cached(shard)
    store.frames(clip)
    assert store.cached(shard)
    assert shard_files(store.folder) == [shard]
    reads()
    again = pickle.loads(pickle.dumps(ClipStore(uri)))
    assert np.array_equal(again.frames(clip), store.frames(clip))
    assert reads() == []


def test_fetching_ahead(uri, folder, reads):
    store = ClipStore(uri)
    reads()
    names = [shard.file for shard in store.index.shards]
    store.fetch([*names, *names])
    assert sorted(reads()) == sorted(names) == shard_files(store.folder)
    ClipStore(folder).fetch(names)  # all there


def test_small_files_follow_the_store(uri, reads):
    copy = ClipStore(uri).folder
    place = Place.open(uri)
    reads()
    time.sleep(1.1)  # times in the store are whole seconds
    (place / "lists" / "kept.txt").write(b"b 1\n")
    (place / "lists" / "more.txt").write(b"c 1\n")
    assert ClipStore(uri).folder == copy
    assert sorted(reads()) == ["kept.txt", "more.txt"]
    assert (copy / "lists" / "kept.txt").read_text() == "b 1\n"
    place.filesystem.delete_file(f"{place.root}/lists/more.txt")
    ClipStore(uri)
    assert [path.name for path in (copy / "lists").iterdir()] == ["kept.txt"]


def test_other_content_at_the_same_address_is_another_copy(uri):
    before = ClipStore(uri)
    index = Place.open(f"{uri}/index.json")
    index.write(index.read() + b" ")
    assert ClipStore(uri).folder != before.folder


def test_shards_are_listed_at_once(uri, s3_server):
    before = len(s3_server.requests(uri))
    ClipStore(uri)
    asked = [key for _, key in s3_server.requests(uri)[before:]]
    assert "manifest.parquet" in asked
    assert not any(key.startswith("shards/") for key in asked)


def test_lost_and_cut_shards_are_named_at_once(uri):
    place, shard = Place.open(uri), ClipStore(uri).index.shards[0]
    (place / "shards" / shard.file).write(b"x")
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} has 1 bytes instead of {shard.bytes}; copy"):
        ClipStore(uri)
    place.filesystem.delete_file(f"{place.root}/shards/{shard.file}")
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} is missing; copy the ingested folder there again"):
        ClipStore(uri)


def test_a_damaged_shard_is_named_and_not_kept(uri, folder):
    store = ClipStore(uri)
    shard = store.index.shards[0]
    path = folder / "shards" / shard.file
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    place = Place.open(uri) / "shards" / shard.file
    place.write(bytes(changed))
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} is damaged: its SHA-256 is not"):
        store.fetch([shard.file])
    assert shard_files(store.folder) == []
    place.write(path.read_bytes())
    store.fetch([shard.file])
    assert shard_files(store.folder) == [shard.file]


def test_a_shard_that_goes_or_is_cut_before_it_is_fetched(uri):
    store = ClipStore(uri)
    shard = store.index.shards[0]
    place = Place.open(uri) / "shards" / shard.file
    place.write(b"some")
    with pytest.raises(UserError, match=rf"{shard.file} has 4 bytes instead of {shard.bytes}"):
        store.fetch([shard.file])
    place.filesystem.delete_file(place.root)
    with pytest.raises(UserError, match=rf"{shard.file} cannot be read: .*; run the same command again"):
        store.fetch([shard.file])
    assert shard_files(store.folder) == []


def test_a_damaged_copy_is_fetched_again(uri):
    store = ClipStore(uri)
    shard = store.index.shards[0].file
    store.fetch([shard])
    path = store.folder / "shards" / shard
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    store.verify()
    assert path.read_bytes() == whole
    path.write_bytes(bytes(len(whole)))
    for clip in clips(ClipStore(uri)):
        assert store.frames(clip).any()
    (store.folder / "manifest.parquet").write_bytes(b"of no use")
    assert clips(ClipStore(uri)) == clips(store)
    path.write_bytes(b"cut")
    assert not store.cached(shard)
    store.verify()


def test_no_data_set_there(uri, s3):
    for look in (ClipStore, check_readable):
        with pytest.raises(UserError, match=rf"{s3}/nothing: no index.json in it; give a folder that pipelines/ingest"):
            look(f"{s3}/nothing")
        with pytest.raises(UserError, match=r"s3://no-such-bucket-here/a: there is no bucket no-such-bucket-here"):
            look("s3://no-such-bucket-here/a")
    index = Place.open(f"{uri}/index.json")
    plain = json.loads(index.read())
    index.write(json.dumps(plain | {"format": 99}).encode())
    with pytest.raises(UserError, match=rf"{uri}/index.json: format 99, this version reads 1"):
        ClipStore(uri)
    del plain["sha256"]  # as in earlier versions
    index.write(json.dumps(plain | {"manifest_sha256": "0" * 64}).encode())
    with pytest.raises(UserError, match=rf"{uri}/manifest.parquet is damaged"):
        ClipStore(uri)
    index.write(b"{")
    with pytest.raises(UserError, match=rf"{uri}/index.json is damaged"):
        ClipStore(uri)


def test_a_store_that_cannot_be_reached_fails_soon(uri, monkeypatch):
    check_readable(uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"{uri} cannot be read: the store cannot be reached"):
        check_readable(uri)
    assert time.monotonic() - began < 15


def test_a_store_that_is_away_is_waited_for(uri, s3_server):
    store = ClipStore(uri)
    clip = clips(store)[0]
    with ThreadPoolExecutor(1) as pool, s3_server.away():
        waiting = pool.submit(store.frames, clip)
        time.sleep(2)
        assert not waiting.done()
        threading.Timer(0.1, s3_server.process.send_signal, [18]).start()  # SIGCONT
        assert waiting.result(60).any()


FETCH = """
import sys
from pipelines.shards.shard_cache import ShardCache
cache = ShardCache(sys.argv[1])
print("ready", flush=True)
cache.fetch([sys.argv[2]])
"""


def test_two_processes_fetch_a_shard_once(uri, reads):
    store = ClipStore(uri)
    name = store.index.shards[0].file
    with (store.folder / "shards" / f".{name}.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)  # a third, which is killed while both wait for it
        command = [sys.executable, "-c", FETCH, uri, name]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        time.sleep(0.2)
        assert [process.poll() for process in processes] == [None, None]
        reads()
    for process in processes:
        process.communicate(timeout=60)
    assert reads() == [name]
    assert [process.returncode for process in processes] == [0, 0]
    assert shard_files(store.folder) == [name]


def test_many_threads_fetch_a_shard_once(uri, reads):
    cache = ShardCache(uri)
    reads()
    name = cache.index.shards[0].file
    with ThreadPoolExecutor(16) as pool:
        paths = set(pool.map(cache.ready, [name] * 64))
    assert paths == {cache.folder / "shards" / name}
    assert reads() == [name]
    assert shard_files(cache.folder) == [name]


def test_what_a_killed_process_left_is_written_over(uri):
    store = ClipStore(uri)
    name = store.index.shards[0].file
    (store.folder / "shards" / f".{name}.part").write_bytes(b"x" * (1 << 20))
    store.fetch([name])
    assert shard_files(store.folder) == [name]
    store.verify()


def test_a_full_disk(uri, monkeypatch):
    store = ClipStore(uri)

    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; make room, or set"):
        store.fetch([store.index.shards[0].file])
    assert shard_files(store.folder) == []


def test_a_cache_that_cannot_be_written(uri, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/data/\w+ cannot be written: Not a directory; make room, or set"):
        ClipStore(uri)


def test_only_unused_data_are_removed_to_make_room(uri, folder, s3, monkeypatch):
    names = [shard.file for shard in ClipStore(uri).index.shards]
    for place in ("old", "older", "used"):
        copied(folder, f"{s3}/{place}")
    old, older, used = (ClipStore(f"{s3}/{place}") for place in ("old", "older", "used"))
    for store in (old, older, used):
        store.fetch(names)
    folders = [old.folder, older.folder]
    os.utime(older.folder / shard_cache.USERS, (1, 1))
    os.utime(used.folder / shard_cache.USERS, (0, 0))
    del old, older, store
    free = iter([4, 4, *[6] * 100])  # before, after the used one, after the older one; 5 % of the disk are 5 GiB
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(100 << 30, 0, next(free) << 30))
    ClipStore(uri).fetch(names[:1])
    assert not (folders[1] / "shards").exists()
    assert shard_files(folders[0]) == shard_files(used.folder) == shard_files(folder)
    back = ClipStore(f"{s3}/older")
    back.fetch(names)
    assert shard_files(back.folder) == shard_files(folder)


def test_local_data_is_not_copied(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    store = ClipStore(folder)
    assert store.cached(store.index.shards[0].file)
    store.verify()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["digests"]  # a few lines
    assert Index.read(folder).digest == ClipStore(f"file://{folder}").digest
