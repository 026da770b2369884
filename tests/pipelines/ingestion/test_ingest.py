"""Ingest: a row for every input, only missing work is done, and any interruption ends at the same index."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingestion import batches
from pipelines.ingestion import ingest as ingesting
from pipelines.ingestion.batch_task import Source, decode_batch, decode_planned, worker_decoder
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.isolation import IsolatedDecoder
from pipelines.shards.index import Index
from pipelines.shards.manifest import SCHEMA
from pipelines.shards.shard_file import ShardWriter
from pipelines.videos.inputs import find_inputs
from tests.helpers import fake_decoders
from tests.helpers.videofiles import numbers, write_video
from vlmodels.errors import UserError
from vlmodels.sampling import pool_indices

PAINT = "tests.helpers.fake_decoders:paint"
SETTINGS = DecodeSettings(frames=2, size=16, pool=1)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def here(monkeypatch):
    """Run batches in this process, with a fake decoder, instead of Ray: the same code but for the scheduling."""

    def run(plan, out, settings, how, say):
        ran.append([len(batch["paths"]) for batch in plan])
        for batch in plan:
            table = decode_planned(pa.Table.from_pylist([batch]), out, settings, how[1], how[2])
            yield from table.to_pylist()

    ran = []
    monkeypatch.setattr(batches, "run_batches", run)
    yield ran
    worker_decoder.cache_clear()


@pytest.fixture
def videos(tmp_path):
    """Twenty files in two classes; two shapes, one that cannot be decoded."""
    for number in range(20):
        path = tmp_path / "videos" / f"class {number % 2}" / f"{'wide' if number % 5 == 0 else 'v'}_{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if number == 7 else bytes([number, 1, 2]))
    return tmp_path / "videos"


def ingest(videos, out, **how):
    return ingesting.ingest(find_inputs([videos]), out, SETTINGS, say=lambda line: None, **{"decode": PAINT, **how})


@contextmanager
def stopped_after(monkeypatch, rows):
    """Stop the ingest in this context when it has taken in so many rows, or all."""
    run = batches.run_batches

    def stopped(*args):
        for number, row in enumerate(run(*args)):
            if number == rows:
                break
            yield row
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batches, "run_batches", stopped)
        with pytest.raises(KeyboardInterrupt):
            yield


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(out):
    return {row["uri"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()}


def test_what_is_left_on_disk(here, videos, tmp_path):
    out = tmp_path / "out"
    report = ingest(videos, out)
    assert here == [[8, 8, 4]]
    assert (report.ok, report.decoded, report.kept) == (19, 20, 0)
    assert report.quarantined == (("class 1/v_07.mp4", "damaged: it says so itself"),)
    table = pq.read_table(out / "manifest.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.num_rows == 20
    assert sorted(path.name for path in out.iterdir()) == ["index.json", "manifest.parquet", "shards"]
    index = Index.read(out)
    assert index.classes == ("class 0", "class 1")
    assert index.decode["segments"] == 2
    assert sorted(shard.file for shard in index.shards) == names(out / "shards")
    assert {shard.shape for shard in index.shards} == {(2, 16, 16, 3), (2, 16, 24, 3)}
    for row in rows(out).values():
        assert row["status"] == ("quarantined" if row["error"] else "ok")
        if row["status"] == "ok":  # plain pyarrow opens a shard
            shard = pa.ipc.open_file(pa.memory_map(str(out / "shards" / row["shard"])))
            batch = shard.get_batch(row["row"])
            assert batch.schema.field("frames").type == pa.fixed_shape_tensor(pa.uint8(), (2, 16, row["width"], 3))
            frames, _ = fake_decoders.paint(str(videos / row["path"]), SETTINGS)
            assert (batch.column("frames").to_numpy_ndarray()[0] == frames).all()


def test_a_rerun_does_only_what_is_missing_or_changed(here, videos, tmp_path):
    out = tmp_path / "out"
    first = ingest(videos, out)
    again = ingest(videos, out)
    assert (again.decoded, again.kept, again.digest) == (0, 20, first.digest)
    (videos / "class 0" / "wide_00.mp4").write_bytes(b"other content")
    (videos / "class 1" / "v_07.mp4").write_bytes(b"mended")
    (videos / "class 1" / "new.mp4").write_bytes(b"new")
    (videos / "class 0" / "v_02.mp4").unlink()
    more = ingest(videos, out)
    assert (more.decoded, more.kept, more.ok) == (3, 17, 20)
    assert here == [[8, 8, 4], [3]]
    assert more.digest != first.digest
    assert "class 0/v_02.mp4" not in rows(out)
    assert more.digest == ingest(videos, tmp_path / "fresh").digest


def test_labels_and_splits_change_without_decoding(here, videos, tmp_path):
    out = tmp_path / "out"
    first = ingest(videos, out)
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n0,Class 0\n1,Class 1\n")
    inputs = find_inputs([videos], [labels])
    renamed = ingesting.ingest(inputs, out, SETTINGS, say=lambda line: None, decode=PAINT)
    assert renamed.decoded == 0
    assert renamed.digest != first.digest
    assert rows(out)["class 0/v_02.mp4"]["label"] == "Class 0"


def test_failures_are_kept_until_a_retry(here, videos, tmp_path):
    out = tmp_path / "out"
    ingest(videos, out, decode="tests.helpers.fake_decoders:moody")
    (videos / "class 0" / "raise.mp4").write_bytes(b"1")
    moody = ingest(videos, out, decode="tests.helpers.fake_decoders:moody")
    assert dict(moody.quarantined)["class 0/raise.mp4"] == "RuntimeError: surprise"
    assert ingest(videos, out).decoded == 0
    retried = ingest(videos, out, retry=True)
    assert (retried.decoded, [uri for uri, _ in retried.quarantined]) == (2, ["class 1/v_07.mp4"])


def test_other_settings_need_another_folder_or_overwrite(here, videos, tmp_path):
    out, other = tmp_path / "out", DecodeSettings(frames=4, size=16, pool=1)
    ingest(videos, out)
    inputs = find_inputs([videos])
    with pytest.raises(UserError, match=r"other settings \(segments 2 instead of 4\); choose another --out, or --over"):
        ingesting.ingest(inputs, out, other, decode=PAINT)
    assert Index.read(out).decode["segments"] == 2
    report = ingesting.ingest(inputs, out, other, overwrite=True, decode=PAINT, say=lambda line: None)
    assert report.decoded == 20
    assert {shard.shape[0] for shard in Index.read(out).shards} == {4}
    assert len(names(out / "shards")) == len(Index.read(out).shards)


def test_a_shard_that_is_lost_or_cut_is_made_again(here, videos, tmp_path):
    out = tmp_path / "out"
    first = ingest(videos, out)
    lost, cut, *_ = Index.read(out).shards
    (out / "shards" / lost.file).unlink()
    os.truncate(out / "shards" / cut.file, cut.bytes // 2)
    again = ingest(videos, out)
    assert again.decoded == lost.rows + cut.rows
    assert again.digest == first.digest


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_stopped_after_any_batch_it_ends_at_the_same_index(here, videos, tmp_path, monkeypatch, batches):
    whole = ingest(videos, tmp_path / "whole")
    out = tmp_path / "out"
    with stopped_after(monkeypatch, 8 * batches):
        ingest(videos, out)
    assert not (out / "index.json").exists()
    (out / "shards" / "0123456789abcdef-2x16x16.arrow.99.tmp").write_bytes(b"half")
    with pytest.raises(UserError, match="other settings"):
        ingesting.ingest(find_inputs([videos]), out, DecodeSettings(frames=4, size=16, pool=1), decode=PAINT)
    assert ingest(videos, out).digest == whole.digest
    assert Index.read(out).shards == Index.read(tmp_path / "whole").shards
    assert names(out / "shards") == names(tmp_path / "whole" / "shards")


def test_stopped_between_manifest_and_index(here, videos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Index, "write", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(videos, out)
    again = ingest(videos, out)
    assert again.decoded == 0
    assert again.digest == ingest(videos, tmp_path / "whole").digest


def test_missing_files_have_a_row(here, videos, tmp_path):
    labels, listed = tmp_path / "labels.csv", tmp_path / "val.txt"
    labels.write_text("id,name\n0,class 0\n1,class 1\n")
    listed.write_text("class 0/v_02.mp4 0\nclass 1/gone.mp4 1\n")
    inputs = find_inputs([listed], [labels], root=videos)
    report = ingesting.ingest(inputs, tmp_path / "out", SETTINGS, say=lambda line: None, decode=PAINT)
    assert (report.ok, report.decoded) == (1, 1)
    assert rows(tmp_path / "out")["class 1/gone.mp4"]["error"].startswith("missing: no such file below")


def test_nothing_decodable_is_an_error_with_a_manifest(here, videos, tmp_path):
    for path in videos.rglob("*.mp4"):
        path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"none of the 20 videos .*it says so itself.*manifest.parquet"):
        ingest(videos, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 20


def test_unwritable_and_busy_folders(here, videos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*Not a directory; choose another --out"):
        ingest(videos, tmp_path / "file" / "out")
    with ingesting._claimed(tmp_path / "out"), pytest.raises(UserError, match="another ingest is writing"):
        ingest(videos, tmp_path / "out")
    assert ingest(videos, tmp_path / "out").ok == 19


@pytest.mark.parametrize(
    ("wanted", "batches", "cpus", "limit", "count"),
    [
        *[(None, 9, 2, 2, 2), (5, 9, 2, 2, 2), (1, 9, 2, 2, 1), (None, 1, 2, 2, 1), (None, 9, 4, 2, 4)],
        *[(None, 9, 0, None, 9), (5, 9, 0, None, 5), (20, 9, 2, None, 9), (None, 9, 0, 3, 3)],
    ],
)
def test_as_many_workers_as_there_are_cpus_or_may_come(wanted, batches, cpus, limit, count, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": cpus} if cpus else {}}, {"Alive": False, "Resources": {"CPU": 50}}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(batches, "can_grow", lambda up: limit != 2)
    monkeypatch.setattr(batches, "most_places", lambda scale, up: limit)
    workers, waiting = batches._at_a_time(wanted, batches)
    assert (workers, bool(waiting)) == (count, not cpus)


@pytest.mark.parametrize("grows", [False, True])
def test_a_cluster_without_cpus_is_refused(grows, monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"memory": 9.0}}])
    monkeypatch.setattr(batches, "can_grow", lambda up: grows)
    monkeypatch.setattr(batches, "most_places", lambda scale, up: 0)
    with pytest.raises(UserError, match="Ray has no CPU to decode with"):
        batches._at_a_time(None, 9)


def test_a_ray_that_is_away_is_not_told_as_a_full_disk(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.cluster.session.connect", lambda: (_ for _ in ()).throw(ConnectionError("no Ray")))
    with pytest.raises(ConnectionError, match="no Ray"):
        ingest(videos, tmp_path / "out")


def test_a_full_disk_leaves_nothing_half_written(here, videos, tmp_path, monkeypatch):
    add, added = ShardWriter.add, []

    def full(self, clip_id, frames):
        added.append(clip_id)
        if len(added) == 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(self, clip_id, frames)

    monkeypatch.setattr(ShardWriter, "add", full)
    settings = IsolatedDecoder(PAINT, SETTINGS, SETTINGS.largest, 20)
    (tmp_path / "out" / "shards").mkdir(parents=True)
    (tmp_path / "out" / ".parts").mkdir()
    sources = [Source(path.name, str(path)) for path in sorted(videos.rglob("*.mp4"))]
    (row,) = decode_batch("0123456789abcdef", sources, tmp_path / "out", settings).to_pylist()
    settings.close()
    assert row["status"] == "fatal"
    assert "No space left on device; free some space or choose another --out" in row["error"]
    assert names(tmp_path / "out" / "shards") == []
    assert names(tmp_path / "out" / ".parts") == []


@pytest.mark.ray
def test_over_ray_more_workers_than_cpus_where_machines_may_come(ray_session, videos, tmp_path, monkeypatch):
    said, asked = [], []
    monkeypatch.setattr(batches, "can_grow", lambda nodes: asked.append(nodes) or True)
    report = ingesting.ingest(find_inputs([videos]), tmp_path / "out", SETTINGS, decode=PAINT, say=said.append)
    assert (report.ok, report.decoded, asked) == (19, 20, [1])
    assert said[0] == "decoding 20 clips in 3 batches with 3 workers"  # on two CPUs


@pytest.mark.ray
def test_over_ray_with_real_videos(ray_session, tmp_path):
    for number in range(10):
        wide = number % 3 == 0
        write_video(tmp_path / "v" / f"class {number % 2}" / f"{number}.mp4", 20 + number, 80 if wide else 64, 48)
    (tmp_path / "v" / "class 0" / "broken.mp4").write_bytes(b"<html>404</html>")
    said = []
    settings = DecodeSettings(frames=4, size=48, pool=2)
    report = ingesting.ingest(find_inputs([tmp_path / "v"]), tmp_path / "out", settings, workers=2, say=said.append)
    assert (report.ok, report.total) == (10, 11)
    assert "11/11 clips" in said[-1]
    for row in rows(tmp_path / "out").values():
        if row["status"] == "ok":
            shard = pa.ipc.open_file(pa.memory_map(str(tmp_path / "out" / "shards" / row["shard"])))
            frames = shard.get_batch(row["row"]).column("frames").to_numpy_ndarray()[0]
            assert numbers(frames) == pool_indices(row["n_frames"], 4, settings.offsets).tolist()


@pytest.mark.ray
def test_killed_midway_it_ends_at_the_same_index(here, videos, tmp_path):
    for number in range(60):
        (videos / "class 0" / f"more_{number}.mp4").write_bytes(bytes([number, 9]))
    out, decode = tmp_path / "out", "tests.helpers.fake_decoders:slowly"
    script = (
        "from pathlib import Path; from pipelines.ingestion.ingest import *\n"
        "from pipelines.videos.inputs import find_inputs\n"
        f"ingest(find_inputs([{str(videos)!r}]), Path({str(out)!r}), DecodeSettings(frames=2, size=16, pool=1),"
        f" workers=1, decode={decode!r})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 240
        while len(list((out / ".parts").glob("[0-9a-f]*.parquet"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "the ingest ended before it could be killed"
            time.sleep(0.02)
        process.kill()
        process.wait()
        time.sleep(1.5)  # orphaned workers may still finish a batch
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # what its Ray leaves behind
    assert not (out / "index.json").exists()
    resumed = ingest(videos, out)
    assert 0 < resumed.decoded < 80
    assert resumed.kept >= 16
    whole = ingest(videos, tmp_path / "whole")
    assert resumed.digest == whole.digest
    assert json.loads((out / "index.json").read_text()) == json.loads((tmp_path / "whole" / "index.json").read_text())
