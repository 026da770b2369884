"""Ingest: a row for every input, only missing work is done, and any interruption ends at the same index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.ingestion.claim import claimed
from pipelines.ingestion.decode import DECODER, DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.ingest import ingest
from pipelines.shards.index import Index
from pipelines.shards.manifest import SCHEMA
from pipelines.videos.inputs import find_inputs
from tests.helpers import fake_decoders
from tests.helpers.ingesting import SETTINGS
from tests.helpers.videofiles import numbers, picture, write_video
from vlmodels.errors import UserError
from vlmodels.sampling import pool_indices
from vlmodels.video import require_reader

ROOT = Path(__file__).parents[3]
OTHER = DecodeSettings(frames=4, size=16, pool=1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(out):
    return {row["uri"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()}


def test_what_is_left_on_disk(here, videos, tmp_path):
    out = tmp_path / "out"
    report = here.ingest(videos, out)
    assert here.batch_sizes == [[8, 8, 4]]
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
    first = here.ingest(videos, out)
    again = here.ingest(videos, out)
    assert (again.decoded, again.kept, again.digest) == (0, 20, first.digest)
    (videos / "class 0" / "wide_00.mp4").write_bytes(b"other content")
    (videos / "class 1" / "v_07.mp4").write_bytes(b"mended")
    (videos / "class 1" / "new.mp4").write_bytes(b"new")
    (videos / "class 0" / "v_02.mp4").unlink()
    more = here.ingest(videos, out)
    assert (more.decoded, more.kept, more.ok) == (3, 17, 20)
    assert here.batch_sizes == [[8, 8, 4], [3]]
    assert more.digest != first.digest
    assert "class 0/v_02.mp4" not in rows(out)
    assert more.digest == here.ingest(videos, tmp_path / "fresh").digest


def test_labels_and_splits_change_without_decoding(here, videos, tmp_path):
    out = tmp_path / "out"
    first = here.ingest(videos, out)
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n0,Class 0\n1,Class 1\n")
    inputs = find_inputs([videos], [labels])
    renamed = here.ingest(inputs, out)
    assert renamed.decoded == 0
    assert renamed.digest != first.digest
    assert rows(out)["class 0/v_02.mp4"]["label"] == "Class 0"


def test_failures_are_kept_until_a_retry(here, videos, tmp_path):
    out = tmp_path / "out"
    here.ingest(videos, out, decode="tests.helpers.fake_decoders:moody")
    (videos / "class 0" / "raise.mp4").write_bytes(b"1")
    moody = here.ingest(videos, out, decode="tests.helpers.fake_decoders:moody")
    assert dict(moody.quarantined)["class 0/raise.mp4"] == "RuntimeError: surprise"
    assert here.ingest(videos, out).decoded == 0
    retried = here.ingest(videos, out, retry=True)
    assert (retried.decoded, [uri for uri, _ in retried.quarantined]) == (2, ["class 1/v_07.mp4"])


def test_other_settings_need_another_folder_or_overwrite(here, videos, tmp_path):
    out = tmp_path / "out"
    here.ingest(videos, out)
    with pytest.raises(UserError, match=r"other settings \(segments 2 instead of 4\); choose another --out, or --over"):
        here.ingest(videos, out, OTHER)
    assert Index.read(out).decode["segments"] == 2
    report = here.ingest(videos, out, OTHER, overwrite=True)
    assert report.decoded == 20
    assert {shard.shape[0] for shard in Index.read(out).shards} == {4}
    assert len(names(out / "shards")) == len(Index.read(out).shards)


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_stopped_after_any_batch_it_ends_at_the_same_index(here, videos, tmp_path, batches):
    whole = here.ingest(videos, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        here.ingest(videos, out, run_batches=here.stopped_after(8 * batches))
    assert not (out / "index.json").exists()
    (out / "shards" / "0123456789abcdef-2x16x16.arrow.99.tmp").write_bytes(b"half")
    with pytest.raises(UserError, match="other settings"):
        here.ingest(videos, out, OTHER)
    assert here.ingest(videos, out).digest == whole.digest
    assert Index.read(out).shards == Index.read(tmp_path / "whole").shards
    assert names(out / "shards") == names(tmp_path / "whole" / "shards")


def test_stopped_between_manifest_and_index(here, videos, tmp_path):
    out = tmp_path / "out"
    obstacle = out / f".index.json.{os.getpid()}.tmp"

    def run_batches(*args):
        yield from here.run_batches(*args)
        obstacle.mkdir()  # where the index is written before it gets its name

    with pytest.raises(UserError, match="cannot write to"):
        here.ingest(videos, out, run_batches=run_batches)
    obstacle.rmdir()
    assert (out / "manifest.parquet").exists()
    assert not (out / "index.json").exists()
    again = here.ingest(videos, out)
    assert again.decoded == 0
    assert again.digest == here.ingest(videos, tmp_path / "whole").digest


def test_missing_files_have_a_row(here, videos, tmp_path):
    labels, listed = tmp_path / "labels.csv", tmp_path / "val.txt"
    labels.write_text("id,name\n0,class 0\n1,class 1\n")
    listed.write_text("class 0/v_02.mp4 0\nclass 1/gone.mp4 1\n")
    inputs = find_inputs([listed], [labels], root=videos)
    report = here.ingest(inputs, tmp_path / "out")
    assert (report.ok, report.decoded) == (1, 1)
    assert rows(tmp_path / "out")["class 1/gone.mp4"]["error"].startswith("missing: no such file below")


def test_nothing_decodable_is_an_error_with_a_manifest(here, videos, tmp_path):
    for path in videos.rglob("*.mp4"):
        path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"none of the 20 videos .*it says so itself.*manifest.parquet"):
        here.ingest(videos, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 20


def test_unwritable_and_busy_folders(here, videos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*Not a directory; choose another --out"):
        here.ingest(videos, tmp_path / "file" / "out")
    with claimed(Destination(tmp_path / "out")), pytest.raises(UserError, match="another ingest is writing"):
        here.ingest(videos, tmp_path / "out")
    assert here.ingest(videos, tmp_path / "out").ok == 19


def test_a_ray_that_is_away_is_no_full_disk(here, videos, tmp_path):
    def run_batches(*_):
        raise ConnectionError("no Ray")

    with pytest.raises(ConnectionError, match="no Ray"):
        here.ingest(videos, tmp_path / "out", run_batches=run_batches)


@pytest.mark.ray
def test_over_ray_with_real_videos(ray_session, tmp_path):
    for number in range(10):
        wide = number % 3 == 0
        write_video(tmp_path / "v" / f"class {number % 2}" / f"{number}.mp4", 20 + number, 80 if wide else 64, 48)
    (tmp_path / "v" / "class 0" / "broken.mp4").write_bytes(b"<html>404</html>")
    said = []
    settings = DecodeSettings(frames=4, size=48, pool=2)
    report = ingest(find_inputs([tmp_path / "v"]), tmp_path / "out", settings, workers=2, say=said.append)
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
    resumed = here.ingest(videos, out)
    assert 0 < resumed.decoded < 80
    assert resumed.kept >= 16
    whole = here.ingest(videos, tmp_path / "whole")
    assert resumed.digest == whole.digest
    assert json.loads((out / "index.json").read_text()) == json.loads((tmp_path / "whole" / "index.json").read_text())


def test_shards_are_the_same_with_every_reader(here, tmp_path):
    for number in range(3):
        write_video(tmp_path / "videos" / "wave" / f"{number}.mp4", frames=40 + number, options={"g": "12", "bf": "2"})
    shards = {}
    for reader in ("pyav", "decord", "torchcodec"):
        try:
            require_reader(reader)
        except UserError:
            continue
        settings = DecodeSettings(frames=4, size=48, pool=1, reader=reader)
        out = tmp_path / reader
        report = here.ingest(tmp_path / "videos", out, settings, decode=DECODER)
        assert report.ok == 3
        assert {row["decoder"] for row in rows(out).values()} == {reader}
        shards[reader] = report.digest, [(shard.sha256, shard.bytes) for shard in Index.read(out).shards]
    assert len(shards) > 1 or pytest.skip("PyAV is the only reader on this machine")
    assert all(found == shards["pyav"] for found in shards.values())


def listed(folder, text):
    path = folder / "list.csv"
    path.write_text(text)
    return find_inputs([path], root=folder / "v")


def test_parts_of_a_video_are_clips_of_their_own(here, tmp_path):
    write_video(tmp_path / "v" / "a.mp4", frames=100)
    write_video(tmp_path / "v" / "b.mp4", frames=50)
    text = "path,label,start_s,end_s\na.mp4,x,0,1\na.mp4,x,2.0,3.0\na.mp4,y,3.5,9\nb.mp4,y,,\nb.mp4,y,2,1\n"
    settings = DecodeSettings(frames=2, size=16, pool=1)
    inputs = listed(tmp_path, text)
    report = here.ingest(inputs, tmp_path / "out", settings, decode=DECODER)
    assert (report.ok, report.decoded, report.total) == (3, 4, 5)
    found = rows(tmp_path / "out")
    assert {uri: (row["start_s"], row["end_s"], row["n_frames"], row["error"][:20]) for uri, row in found.items()} == {
        "a.mp4 [0.0-1.0 s]": (0.0, 1.0, 25, ""),
        "a.mp4 [2.0-3.0 s]": (2.0, 3.0, 25, ""),
        "a.mp4 [3.5-9.0 s]": (3.5, 9.0, None, "times after the vide"),
        "b.mp4": (None, None, 50, ""),
        "b.mp4 [2-1]": (None, None, None, "wrong times: its end"),
    }
    assert {row["group"] for uri, row in found.items() if uri.startswith("a")} == {"a"}
    again = here.ingest(inputs, tmp_path / "out", settings, decode=DECODER)
    assert (again.decoded, again.digest) == (0, report.digest)


def test_a_part_is_stored_like_a_file_that_is_cut_to_it(here, tmp_path):
    write_video(tmp_path / "v" / "a.mp4", frames=100, options={"qp": "0"})
    settings = DecodeSettings(frames=4, size=32, pool=2)
    here.ingest(listed(tmp_path, "path,label,start_s,end_s\na.mp4,x,1,3\n"), tmp_path / "out", settings, decode=DECODER)
    (row,) = rows(tmp_path / "out").values()
    shard = pa.ipc.open_file(pa.memory_map(str(tmp_path / "out" / "shards" / row["shard"])))
    stored = shard.get_batch(row["row"]).column("frames").to_numpy_ndarray()[0]
    assert numbers(stored) == (25 + pool_indices(50, 4, settings.offsets)).tolist()


def test_parts_of_a_video_stay_in_one_batch(here, tmp_path):
    write_video(tmp_path / "v" / "a.mp4", frames=100)
    write_video(tmp_path / "v" / "b.mp4", frames=100)
    lines = [f"{name}.mp4,x,{start / 10},{start / 10 + 1}\n" for name in "ab" for start in range(20)]
    here.ingest(listed(tmp_path, "path,label,start_s,end_s\n" + "".join(lines)), tmp_path / "out", decode=DECODER)
    assert here.batch_sizes == [[20, 20]]


def test_a_broken_video_costs_its_parts_and_is_tried_once(here, tmp_path):
    write_video(tmp_path / "v" / "a.mp4", frames=100)
    (tmp_path / "v" / "b.mp4").write_bytes(b"no video")
    text = "path,label,start_s,end_s\na.mp4,x,0,1\nb.mp4,x,0,1\nb.mp4,x,1,2\nb.mp4,x,2,3\n"
    report = here.ingest(listed(tmp_path, text), tmp_path / "out", decode=DECODER)
    assert report.ok == 1
    assert len({reason for _, reason in report.quarantined}) == 1


def test_frame_folders_are_videos(here, tmp_path):
    for folder, count in (("x/v1", 12), ("x/v2", 12), ("y/v1", 12)):
        (tmp_path / "v" / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(number, 64, 48)).save(tmp_path / "v" / folder / f"{number}.png")
    (tmp_path / "v" / "y" / "v1" / "7.png").unlink()
    settings = DecodeSettings(frames=2, size=16, pool=1)
    inputs = find_inputs([tmp_path / "v"])
    report = here.ingest(inputs, tmp_path / "out", settings, decode=DECODER)
    assert report.quarantined == (("y/v1", "a gap in its pictures: none is between 6.png and 8.png"),)
    found = rows(tmp_path / "out")
    assert {(row["n_frames"], row["fps"], row["decoder"]) for row in found.values() if not row["error"]} == {
        (12, 0.0, "pictures")
    }
    assert here.ingest(inputs, tmp_path / "out", settings, decode=DECODER).digest == report.digest
    Image.fromarray(picture(3, 64, 48)).save(tmp_path / "v" / "y" / "v1" / "7.png")
    mended = here.ingest(inputs, tmp_path / "out", settings, decode=DECODER)
    assert (mended.decoded, mended.ok) == (1, 3)
    here.ingest(find_inputs([tmp_path / "v"], fps=10), tmp_path / "out", settings, decode=DECODER)
    assert {row["fps"] for row in rows(tmp_path / "out").values()} == {10.0}
