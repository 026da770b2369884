"""Reading ingested data: frames without a copy, a store that pickles, and folders that are damaged or unfinished."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingestion.decode import DecodeSettings
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
from pipelines.storage.cache import cache_root
from pipelines.storage.files import file_sha256
from tests.helpers import fake_decoders
from tests.helpers.ingesting import SETTINGS
from vlmodels.errors import UserError
from vlmodels.sampling import Starts


@pytest.fixture
def folder(here, videos, tmp_path):
    here.ingest(videos, tmp_path / "out")
    return tmp_path / "out"


def decoded(store):
    return {row["uri"]: row["clip_id"] for row in store.manifest.to_pylist() if row["status"] == "ok"}


def test_every_clip_comes_back(folder, videos):
    store = ClipStore(folder)
    assert (store.segments, store.offsets, store.classes) == (2, (0.5,), ("class 0", "class 1"))
    assert store.digest == Index.read(folder).digest
    assert len(store) == 19 == len(decoded(store))
    assert store.manifest.num_rows == 20
    assert store.shape[1] == 16
    for uri, clip in decoded(store).items():
        frames = store.frames(clip)
        assert np.array_equal(frames, fake_decoders.paint(str(videos / uri), SETTINGS)[0])
        assert not frames.flags.writeable
        assert not frames.flags.owndata
    with pytest.raises(KeyError):
        store.frames("no such clip")


def test_an_index_says_how_clips_were_sampled(folder, here, videos, tmp_path):
    plain = json.loads((folder / "index.json").read_text())["decode"]
    assert not {"sampling", "stride"} & plain.keys()  # as before there was another sampling
    store = ClipStore(folder)
    assert (store.sampling, store.stride, type(store.offsets)) == ("segments", 0, tuple)
    assert {store.n_frames(clip) for clip in decoded(store).values()} == {40}
    dense = DecodeSettings(frames=2, size=16, pool=3, sampling="dense", stride=4)
    here.ingest(videos, tmp_path / "dense", dense)
    store = ClipStore(tmp_path / "dense")
    assert (store.sampling, store.stride, store.segments) == ("dense", 4, 2)
    assert store.offsets == Starts([0.5, 0, 0.5, 1])
    assert isinstance(store.offsets, Starts)
    assert store.shape[0] == 8
    with pytest.raises(UserError, match=r"holds clips decoded with other settings .*sampling None instead of dense"):
        here.ingest(videos, folder, dense)


def test_it_pickles_by_path(folder):
    store = ClipStore(folder)
    clip = next(iter(decoded(store).values()))
    store.frames(clip)
    message = pickle.dumps(store)
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).frames(clip), store.frames(clip))


def test_few_files_stay_open_and_frames_outlive_them(folder):
    store = pickle.loads(pickle.dumps(ClipStore(folder, open_shards=1)))
    kept = {clip: store.frames(clip) for clip in decoded(store).values()}
    for clip, frames in kept.items():
        assert np.array_equal(frames, store.frames(clip))
    assert len(store.index.shards) > 1
    assert open_files(folder) == 1
    del store
    gc.collect()  # it refers to itself
    assert open_files(folder) == 0
    assert all(frames.any() for frames in kept.values())


def open_files(folder):
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            links.append(str(entry.readlink()))
    return sum(str(folder) in link for link in links)


def test_no_or_unfinished_ingest(folder, tmp_path):
    with pytest.raises(UserError, match=r"no such folder; pipelines/ingest.py makes it"):
        ClipStore(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no index.json in it"):
        ClipStore(tmp_path / "empty")
    (folder / "manifest.parquet").write_bytes((folder / "manifest.parquet").read_bytes() + b"x")
    with pytest.raises(
        UserError, match=r"damaged or of another ingest; run the same pipelines/ingest.py command again"
    ):
        ClipStore(folder)
    (folder / ".parts").mkdir()
    (folder / ".parts" / "settings.json").write_text("{}")
    with pytest.raises(UserError, match=r"unfinished .*; run the same pipelines/ingest.py command again"):
        ClipStore(folder)
    (folder / "index.json").unlink()
    with pytest.raises(UserError, match="unfinished"):
        ClipStore(folder)


def changed(path, place=None):
    """Flip a bit of a file, in the middle unless told where."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def announced(store):
    """Check all clips of a store; return what it says it reads."""
    said = []
    store.check(decoded(store).values(), lambda *numbers: said.append(numbers))
    return said


def test_lost_and_cut_shards(folder):
    shard = Index.read(folder).shards[0]
    path = folder / "shards" / shard.file
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=f"{shard.file} has {len(whole) - 100} bytes instead of {len(whole)}"):
        ClipStore(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{shard.file} is missing"):
        ClipStore(folder)


def test_each_shard_is_read_once_after_each_change(folder):
    shards = Index.read(folder).shards
    assert announced(ClipStore(folder)) == [(len(shards), sum(shard.bytes for shard in shards))]
    assert announced(ClipStore(folder)) == []
    path = folder / "shards" / shards[0].file
    path.write_bytes(path.read_bytes())
    assert announced(ClipStore(folder)) == [(1, shards[0].bytes)]


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_flipped_bit_is_found_before_and_while_clips_are_read(folder, seen_before):
    store = ClipStore(folder)
    if seen_before:
        announced(store)
    shard = store.index.shards[0].file
    path = folder / "shards" / shard
    found = path.stat()
    changed(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as a copying program may do
    damage = f"{shard} is damaged: its SHA-256 is not the recorded one; run the same pipelines/ingest.py command again"
    with pytest.raises(UserError, match=damage):
        announced(ClipStore(folder))
    with pytest.raises(UserError, match=damage):
        ClipStore(folder).verify()
    with pytest.raises(UserError, match=damage):
        read_all(ClipStore(folder))


def read_all(store):
    for clip in decoded(store).values():
        store.frames(clip)


def test_what_is_remembered_may_be_lost(folder, tmp_path, monkeypatch):
    announced(ClipStore(folder))
    kept = max((cache_root() / "digests").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    kept.write_bytes(bytes(100) + b"\n[[[\n{}\n")
    assert announced(ClipStore(folder))
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "no folder"))
    assert announced(ClipStore(folder))
    read_all(ClipStore(folder))


BAD_VALUES = {
    "shards": [{}, "x", [], [{}], [1], None],
    "classes": ["jump", [1], None, ["a", "a"]],
    "digest": [1, "d", None],
    "manifest_sha256": ["m"],
    "root": [[]],
    "decode": [[], {}, None, {"segments": 10**30, "offsets": [0.5]}, {"segments": 2, "offsets": "half"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD_VALUES.items() for value in values])
def test_an_index_with_other_values(folder, key, value):
    plain = json.loads((folder / "index.json").read_text())
    for hashed in (plain, {name: each for name, each in plain.items() if name != "sha256"}):
        (folder / "index.json").write_text(json.dumps(hashed | {key: value}))
        with pytest.raises(UserError, match=rf"index.json is damaged \(.*{key[:5]}.*\); run the same pipelines/ingest"):
            ClipStore(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"",
        b"\0" * 500,
        b"{",
        b"[" * 100_000,
        b'{"format": NaN}',
        b"\xff\xfe{}",
        b"9" * 5000,
    ],
)
def test_an_index_that_is_none(folder, content):
    (folder / "index.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"index.json is damaged \(.*\); run the same pipelines/ingest.py command again"
    ):
        ClipStore(folder)


def swapped_classes(plain):
    return plain | {"classes": plain["classes"][::-1]}


def other_offsets(plain):
    return plain | {"decode": plain["decode"] | {"offsets": [0.25]}}


def other_digest(plain):
    return plain | {"digest": "0" * 64}


@pytest.mark.parametrize("change", [swapped_classes, other_offsets, other_digest])
@pytest.mark.parametrize("hashed", [True, False])
def test_an_index_that_has_changed(folder, change, hashed):
    """Also one of an earlier version, which has no hash of its own."""
    plain = json.loads((folder / "index.json").read_text())
    if not hashed:
        del plain["sha256"]
        (folder / "index.json").write_text(json.dumps(plain))
        assert len(ClipStore(folder)) == 19
    (folder / "index.json").write_text(json.dumps(change(plain)))
    with pytest.raises(UserError, match=r"index.json is damaged.*; run the same pipelines/ingest.py command again"):
        ClipStore(folder)


def test_an_index_of_another_format(folder):
    plain = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(plain | {"format": 99}))
    with pytest.raises(UserError, match="format 99, this version reads 1"):
        ClipStore(folder)


def test_a_manifest_with_other_columns(folder):
    table = pq.read_table(folder / "manifest.parquet")
    for other in (table.drop_columns(["label"]), table.set_column(3, "label", pa.array([1] * len(table)))):
        pq.write_table(other, folder / "manifest.parquet")
        dataclasses.replace(Index.read(folder), manifest_sha256=file_sha256(folder / "manifest.parquet")).write(folder)
        with pytest.raises(UserError, match=r"manifest.parquet.* column label"):
            ClipStore(folder)
