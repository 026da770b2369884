"""Reading ingested data: frames without a copy, a store that pickles, and folders that are damaged or unfinished."""

from __future__ import annotations

import contextlib
import gc
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipelines.ingestion.decode import DecodeSettings
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
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
    with pytest.raises(UserError, match=r"unfinished .*; run the same pipelines/ingest.py command again"):
        ClipStore(folder)
    (folder / "index.json").unlink()
    with pytest.raises(UserError, match="unfinished"):
        ClipStore(folder)


def test_lost_cut_and_damaged_shards(folder):
    shard = Index.read(folder).shards[0]
    path = folder / "shards" / shard.file
    whole = path.read_bytes()
    ClipStore(folder).verify()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(UserError, match=f"{shard.file} is damaged"):
        ClipStore(folder).verify()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=f"{shard.file} has {len(whole) - 100} bytes instead of {len(whole)}"):
        ClipStore(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{shard.file} is missing"):
        ClipStore(folder)


def test_an_index_that_disagrees_with_the_manifest(folder):
    plain = json.loads((folder / "index.json").read_text())
    plain["shards"][0]["rows"] = 1
    (folder / "index.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="disagree about"):
        ClipStore(folder)
    plain["format"] = 99
    (folder / "index.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="format 99, this version reads 1"):
        ClipStore(folder)
