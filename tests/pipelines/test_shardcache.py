"""Data in a store: small files are copied at once, shards when they are read, each once and whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from pipelines.data import shardcache
from pipelines.data.clipstore import ClipStore
from pipelines.data.folder import Index
from pipelines.data.shardcache import ShardCache, check_readable, local_file, local_run
from pipelines.storage import Place
from tests.pipelines.test_shards import here, ingest, videos
from vlmodels.errors import UserError

__all__ = ["here", "videos"]  # fixtures

Disk = namedtuple("Disk", "total used free")  # noqa: PYI024  # as shutil's


@pytest.fixture
def folder(here, videos, tmp_path):
    ingest(videos, tmp_path / "out")
    (tmp_path / "out" / "lists").mkdir()
    (tmp_path / "out" / "lists" / "train.txt").write_text("a 0\n")
    (tmp_path / "out" / "captions.json").write_text("{}")
    return tmp_path / "out"


def copied(folder, uri):
    place = Place.open(uri)
    fs.copy_files(str(folder), place.root, fs.LocalFileSystem(), place.filesystem)
    return place


@pytest.fixture
def uri(folder, s3):
    copied(folder, f"{s3}/data set")
    return f"{s3}/data set"


@pytest.fixture
def requests(monkeypatch):
    """Names of the files that were read in the store."""
    names = []
    chunks = shardcache._File._chunks

    def counted(self):
        names.append(self.source.root.rpartition("/")[2])
        yield from chunks(self)

    monkeypatch.setattr(shardcache._File, "_chunks", counted)
    return names


def clips(store):
    return [row["clip_id"] for row in store.manifest.to_pylist() if row["status"] == "ok"]


def shards(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_a_data_set_in_a_store_is_the_one_that_was_copied(uri, folder, requests):
    here, there = ClipStore(folder), ClipStore(uri)
    assert (there.uri, there.name, there.digest, there.shape) == (uri, "data set", here.digest, here.shape)
    assert (here.uri, here.name) == (str(folder), "out")
    assert there.manifest.equals(here.manifest)
    assert sorted(requests) == ["captions.json", "manifest.parquet", "train.txt"]
    assert (there.folder / "lists" / "train.txt").read_text() == "a 0\n"
    assert shards(there.folder) == []
    for clip in clips(here):
        assert here.place(clip) == there.place(clip)
        assert np.array_equal(here.frames(clip), there.frames(clip))
        assert not there.frames(clip).flags.owndata
    assert shards(there.folder) == shards(folder)
    assert len(requests) == 3 + len(here.index.shards)
    there.verify()


def test_only_what_is_read_is_fetched_and_once(uri, requests):
    store = ClipStore(uri)
    clip = clips(store)[0]
    shard, _ = store.place(clip)
    assert not store.cached(shard)
    store.frames(clip)
    assert store.cached(shard)
    assert shards(store.folder) == [shard]
    requests.clear()
    again = pickle.loads(pickle.dumps(ClipStore(uri)))
    assert np.array_equal(again.frames(clip), store.frames(clip))
    assert requests == []


def test_fetching_ahead(uri, folder, requests):
    store = ClipStore(uri)
    requests.clear()
    names = [shard.file for shard in store.index.shards]
    store.fetch([*names, *names])
    assert sorted(requests) == sorted(names) == shards(store.folder)
    ClipStore(folder).fetch(names)  # all there


def test_small_files_follow_the_store(uri, requests):
    copy = ClipStore(uri).folder
    place = Place.open(uri)
    requests.clear()
    time.sleep(1.1)  # times in the store are whole seconds
    (place / "lists" / "train.txt").write(b"b 1\n")
    (place / "lists" / "test.txt").write(b"c 1\n")
    assert ClipStore(uri).folder == copy
    assert sorted(requests) == ["test.txt", "train.txt"]
    assert (copy / "lists" / "train.txt").read_text() == "b 1\n"
    place.filesystem.delete_file(f"{place.root}/lists/test.txt")
    ClipStore(uri)
    assert [path.name for path in (copy / "lists").iterdir()] == ["train.txt"]


def test_other_content_at_the_same_address_is_another_copy(uri):
    before = ClipStore(uri)
    index = Place.open(f"{uri}/index.json")
    index.write(index.read() + b" ")
    assert ClipStore(uri).folder != before.folder


def test_shards_are_listed_at_once(uri, monkeypatch):
    asked = []
    size = Place.size
    monkeypatch.setattr(Place, "size", lambda self: asked.append(self.root) or size(self))
    ClipStore(uri)
    assert [root.rpartition("/")[2] for root in asked] == ["manifest.parquet"]


def test_lost_and_cut_shards_are_told_at_once(uri):
    place, shard = Place.open(uri), ClipStore(uri).index.shards[0]
    (place / "shards" / shard.file).write(b"x")
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} has 1 bytes instead of {shard.bytes}; copy"):
        ClipStore(uri)
    place.filesystem.delete_file(f"{place.root}/shards/{shard.file}")
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} is missing; copy the ingested folder there again"):
        ClipStore(uri)


def test_a_damaged_shard_is_told_and_not_kept(uri, folder):
    store = ClipStore(uri)
    shard = store.index.shards[0]
    path = folder / "shards" / shard.file
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    place = Place.open(uri) / "shards" / shard.file
    place.write(bytes(changed))
    with pytest.raises(UserError, match=rf"{uri}/shards/{shard.file} is damaged: its SHA-256 is not"):
        store.fetch([shard.file])
    assert shards(store.folder) == []
    place.write(path.read_bytes())
    store.fetch([shard.file])
    assert shards(store.folder) == [shard.file]


def test_a_shard_that_goes_or_is_cut_while_it_is_fetched(uri, monkeypatch):
    store = ClipStore(uri)
    shard = store.index.shards[0]
    with monkeypatch.context() as patch:
        patch.setattr(shardcache._File, "_chunks", lambda self: iter([b"some"]))
        with pytest.raises(UserError, match=rf"{shard.file} has 4 bytes instead of {shard.bytes}"):
            store.fetch([shard.file])
    Place.open(uri).filesystem.delete_file(f"{store._cache.place.root}/shards/{shard.file}")
    with pytest.raises(UserError, match=rf"{shard.file} cannot be read: .*; run the same command again"):
        store.fetch([shard.file])
    assert shards(store.folder) == []


def test_a_damaged_copy_is_told(uri):
    store = ClipStore(uri)
    shard = store.index.shards[0].file
    store.fetch([shard])
    path = store.folder / "shards" / shard
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UserError, match=f"{path} is damaged; remove it and it will be fetched again"):
        store.verify()
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
    index.write(json.dumps(plain | {"manifest_sha256": "0" * 64}).encode())
    with pytest.raises(UserError, match=rf"{uri}/manifest.parquet is damaged: its SHA-256 is not that of index.json"):
        ClipStore(uri)
    index.write(b"{")
    with pytest.raises(UserError, match=rf"{uri}/index.json: not readable as an index"):
        ClipStore(uri)


def test_a_store_that_cannot_be_reached_is_told_soon(uri, monkeypatch):
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


def fetch_slowly(uri, go, told):
    chunks = shardcache._File._chunks

    def slow(self):
        told.put(self.source.root)
        time.sleep(0.3)
        yield from chunks(self)

    store = ClipStore(uri)
    shardcache._File._chunks = slow
    go.wait()
    store.fetch([store.index.shards[0].file])


def test_two_processes_fetch_a_shard_once(uri):
    context = multiprocessing.get_context("spawn")
    go, told = context.Barrier(2), context.Queue()
    processes = [context.Process(target=fetch_slowly, args=(uri, go, told)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert told.get(timeout=5)
    assert told.empty()
    assert len(shards(ClipStore(uri).folder)) == 1


def test_many_threads_fetch_a_shard_once(uri, requests):
    store = ClipStore(uri)
    requests.clear()
    name = store.index.shards[0].file
    with ThreadPoolExecutor(16) as pool:
        paths = set(pool.map(store._cache.ready, [name] * 64))
    assert paths == {store.folder / "shards" / name}
    assert requests == [name]
    assert shards(store.folder) == [name]


def test_what_a_killed_process_left_is_written_over(uri):
    store = ClipStore(uri)
    name = store.index.shards[0].file
    (store.folder / "shards" / f".{name}.part").write_bytes(b"x" * (1 << 20))
    store.fetch([name])
    assert shards(store.folder) == [name]
    store.verify()


def test_a_full_disk(uri, monkeypatch):
    store = ClipStore(uri)

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    copy = shardcache._File._copy
    monkeypatch.setattr(shardcache._File, "_copy", lambda self, file: copy(self, Full(file)))
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; make room, or set"):
        store.fetch([store.index.shards[0].file])
    assert shards(store.folder) == []


def test_a_cache_that_cannot_be_written(uri, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/data/\w+ cannot be written: Not a directory; make room, or set"):
        ClipStore(uri)


def test_room_is_made_among_data_that_nobody_reads(uri, folder, s3, monkeypatch):
    names = [shard.file for shard in ClipStore(uri).index.shards]
    for place in ("old", "older", "used"):
        copied(folder, f"{s3}/{place}")
    old, older, used = (ClipStore(f"{s3}/{place}") for place in ("old", "older", "used"))
    for store in (old, older, used):
        store.fetch(names)
    folders = [old.folder, older.folder]
    os.utime(older.folder / shardcache.USERS, (1, 1))
    os.utime(used.folder / shardcache.USERS, (0, 0))
    del old, older, store
    free = iter([10, 10, 100, *[100] * 100])  # before, after the used one, after the older one
    monkeypatch.setattr(shardcache, "SPARE_BYTES", 50)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(1000, 0, next(free) + 1e9))
    monkeypatch.setattr(shardcache, "SPARE_SHARE", (50 + 1e9) / 1000)
    monkeypatch.setattr(shardcache, "_make_room", lambda data, needed, make=shardcache._make_room: make(data, 0))
    ClipStore(uri).fetch(names[:1])
    assert not (folders[1] / "shards").exists()
    assert shards(folders[0]) == shards(used.folder) == shards(folder)
    back = ClipStore(f"{s3}/older")
    back.fetch(names)
    assert shards(back.folder) == shards(folder)


def test_local_data_needs_no_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    store = ClipStore(folder)
    assert store.cached(store.index.shards[0].file)
    store.verify()
    assert not (tmp_path / "cache").exists()
    assert Index.read(folder).digest == ClipStore(f"file://{folder}").digest


def test_a_single_file(s3, tmp_path, requests):
    local = tmp_path / "a.sqlite"
    local.write_bytes(b"one")
    assert local_file(local) == local
    (Place.open(s3) / "a.sqlite").write(b"two")
    copy = local_file(f"{s3}/a.sqlite")
    assert (copy.name, copy.read_bytes()) == ("a.sqlite", b"two")
    assert local_file(f"{s3}/a.sqlite") == copy
    assert requests == ["a.sqlite"]
    with pytest.raises(UserError, match=rf"{s3}/b.sqlite: no such file"):
        local_file(f"{s3}/b.sqlite")


def test_a_run(s3):
    assert local_run("models:/a@b") == "models:/a@b"
    for name in ("run.json", "adapter.safetensors", "predictions.npz", "report/report.html"):
        (Place.open(s3) / name).write(b"1")
    copy = Path(local_run(s3))
    assert sorted(path.name for path in copy.iterdir()) == ["adapter.safetensors", "run.json"]
    assert ShardCache  # the rest is a data set's
