"""Ingest into a store, and of videos that lie in one: the same result as on a disk, whatever is cut off in between."""

from __future__ import annotations

import os
import shutil
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from pipelines import ingest as script
from pipelines.ingestion import batches, destination
from pipelines.ingestion import ingest as ingesting
from pipelines.ingestion.batch_task import decode_planned
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
from pipelines.storage.place import Place
from pipelines.videos.inputs import find_inputs
from tests.pipelines.ingestion.test_ingest import PAINT, SETTINGS, here, stopped_after, videos
from vlmodels.errors import UserError

__all__ = ["here", "videos"]  # fixtures


def ingest(inputs, out, **how):
    to = Destination.at(out)
    return ingesting.ingest(inputs, to, SETTINGS, **{"say": lambda line: None, "decode": PAINT, **how})


def listing(uri):
    """Sizes of all files below a folder of the store, by path."""
    place = Place.open(uri)
    infos = place.filesystem.get_file_info(fs.FileSelector(place.root, recursive=True, allow_not_found=True))
    return {info.path[len(place.root) + 1 :]: info.size for info in infos if info.type == fs.FileType.File}


def on_disk(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def upload(folder, uri):
    place = Place.open(uri)
    fs.copy_files(str(folder), place.root, destination_filesystem=place.filesystem)


def rows(out):
    table = pq.read_table(ClipStore(out).folder / "manifest.parquet")
    return {row["uri"]: row for row in table.to_pylist()}


@pytest.fixture
def away(monkeypatch):
    """Forget all that this machine keeps, as if the next call came from another one."""

    def forget():
        shutil.rmtree(os.environ["VIDADAPT_CACHE"], ignore_errors=True)

    return forget


def test_a_store_gets_what_a_folder_would(here, videos, s3, tmp_path, away):
    inputs = find_inputs([videos])
    local, stored = ingest(inputs, tmp_path / "out"), ingest(inputs, s3)
    assert stored.digest == local.digest
    assert listing(s3) == on_disk(tmp_path / "out")
    assert stored.manifest == f"{s3}/manifest.parquet"
    store = ClipStore(s3)
    store.verify()
    assert store.index.shards == Index.read(tmp_path / "out").shards
    assert not list((tmp_path / "cache" / "ingest" / "work").iterdir())
    away()
    again = ingest(inputs, s3)
    assert (again.decoded, again.kept, again.digest) == (0, 20, local.digest)
    assert listing(s3) == on_disk(tmp_path / "out")


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_cut_off_it_goes_on_from_any_machine(here, videos, s3, tmp_path, away, monkeypatch, batches, elsewhere):
    inputs = find_inputs([videos])
    with stopped_after(monkeypatch, 8 * batches):
        ingest(inputs, s3)
    (Place.open(s3) / "shards/0123456789abcdef-2x16x16.arrow").write(b"of a machine that was lost before its part")
    with pytest.raises(UserError, match="no index"):
        ClipStore(s3)
    if elsewhere:
        away()
    with pytest.raises(UserError, match=r"other settings .*choose another --out, or --overwrite"):
        ingesting.ingest(inputs, Destination.at(s3), DecodeSettings(frames=4, size=16, pool=1), decode=PAINT)
    resumed = ingest(inputs, s3)
    assert resumed.kept >= 8 * batches
    assert resumed.digest == ingest(inputs, tmp_path / "whole").digest
    assert listing(s3) == on_disk(tmp_path / "whole")


def test_a_shard_that_is_lost_or_cut_is_made_again(here, videos, s3):
    inputs = find_inputs([videos])
    first = ingest(inputs, s3)
    lost, cut, *_ = ClipStore(s3).index.shards
    place = Place.open(s3)
    place.filesystem.delete_file((place / f"shards/{lost.file}").root)
    (place / f"shards/{cut.file}").write(b"half")
    again = ingest(inputs, s3)
    assert (again.decoded, again.digest) == (lost.rows + cut.rows, first.digest)
    ClipStore(s3).verify()


def test_a_store_that_another_ingest_has_taken_over_is_left_alone(here, videos, s3, away, monkeypatch):
    inputs, run, said = find_inputs([videos]), batches.run_batches, []

    def overtaken(*args):
        yield from run(*args)
        away()
        monkeypatch.setattr(batches, "run_batches", cut_off)
        with pytest.raises(KeyboardInterrupt):  # a second machine begins, and sets to work
            ingest(inputs, s3, overwrite=True, say=said.append)
        (Place.open(s3) / foreign).write(b"of the second")
        before.update(listing(s3))

    def cut_off(*args):
        raise KeyboardInterrupt
        yield

    foreign, before = "shards/0123456789abcdef-2x16x16.arrow", {}
    monkeypatch.setattr(batches, "run_batches", overtaken)
    with pytest.raises(UserError) as error:
        ingest(inputs, s3)
    host = f"on {socket.gethostname()}, process {os.getpid()}, since 20"
    assert str(error.value).startswith(f"another ingest ({host}")
    assert str(error.value).endswith(f" has taken over {s3}; run this one again when it has ended")
    assert listing(s3) == before
    assert foreign in before
    assert len(said) == 1
    assert said[0].startswith(f"taking over {s3} from an ingest that was cut off, or still runs ({host}")
    monkeypatch.setattr(batches, "run_batches", run)
    said.clear()
    for _ in range(2):  # whoever comes last goes on, and leaves no claim
        ingest(inputs, s3, say=said.append)
    assert len(said) == 1
    assert not any("owner" in name for name in listing(s3))
    assert foreign not in listing(s3)


def test_the_last_moment_to_find_out_is_before_the_index(here, videos, s3, monkeypatch):
    inputs, sizes, asked = find_inputs([videos]), Destination.shard_sizes, []

    def taken(self):
        asked.append(1)
        if len(asked) == 2:  # of the first, the one when it publishes
            place = Place.open(s3) / destination.OWNER
            place.filesystem.delete_file(place.root)
        return sizes(self)

    monkeypatch.setattr(Destination, "shard_sizes", taken)
    with pytest.raises(UserError, match=rf"^another ingest has taken over {s3}; run this one again when it has ended"):
        ingest(inputs, s3)
    assert "index.json" not in listing(s3)


def test_wrong_settings_take_over_nothing(here, videos, s3):
    ingest(find_inputs([videos]), s3)
    with pytest.raises(UserError, match="other settings"):
        ingesting.ingest(
            find_inputs([videos]), Destination.at(s3), DecodeSettings(frames=4, size=16, pool=1), decode=PAINT
        )
    assert not any("owner" in name for name in listing(s3))


def test_a_store_that_keeps_no_times(here, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    out = f"memory://{tmp_path.name}/data"
    place = Place.open(out)
    first = ingest(find_inputs([videos]), out)
    assert place.filesystem.get_file_info(f"{place.root}/index.json").mtime_ns is None
    again = ingest(find_inputs([videos]), out)
    assert (again.decoded, again.kept, again.digest) == (0, 20, first.digest)


def test_overwrite_takes_the_index_first(here, videos, s3, monkeypatch):
    inputs, other = find_inputs([videos]), DecodeSettings(frames=4, size=16, pool=1)
    ingest(inputs, s3)
    with monkeypatch.context() as patch:
        patch.setattr(destination.Destination, "shard_sizes", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(inputs, s3, overwrite=True)
    assert "index.json" not in listing(s3)
    report = ingesting.ingest(inputs, Destination.at(s3), other, overwrite=True, decode=PAINT, say=lambda line: None)
    assert report.decoded == 20
    store = ClipStore(s3)
    assert {shard.shape[0] for shard in store.index.shards} == {4}
    assert {name for name in listing(s3) if name.startswith("shards/")} == {
        f"shards/{shard.file}" for shard in store.index.shards
    }


def test_the_lists_go_along_and_are_replaced(here, videos, s3, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("id,name\n0,class 0\n1,class 1\n")
    for name in ("old", "new"):
        (tmp_path / f"{name}.txt").write_text("class 0/v_02.mp4 0\n")
        ingest(find_inputs([tmp_path / f"{name}.txt"], [labels], root=videos), s3)
    kept = {name for name in listing(s3) if name.startswith("lists/")}
    assert kept == {"lists/new.txt", "lists/labels.csv", "lists/lists.json"}


def test_a_wrong_bucket_is_found_before_anything_else(here, videos, s3):
    bucket = "s3://no-such-bucket/data"
    with pytest.raises(UserError, match=r"cannot write to s3://no-such-bucket/data: there is no such bucket"):
        ingest(find_inputs([videos]), bucket)
    with pytest.raises(UserError, match=r"s3://no-such-bucket/v cannot be read: there is no such bucket"):
        find_inputs(["s3://no-such-bucket/v"])
    assert here == []


def planned(folder, **facts):
    paths = sorted(str(path) for path in folder.rglob("*.mp4"))
    row = {
        "name": "0123456789abcdef",
        "clip_ids": paths,
        "paths": paths,
        "listed": [],
        "videos": str(folder),
        "token": "",
    }
    return pa.Table.from_pylist([row | facts])


def test_a_batch_that_cannot_be_delivered_ends_the_run(videos, s3, tmp_path):
    nowhere = Destination(tmp_path / "desk", "s3://no-such-bucket/x")
    (row,) = decode_planned(planned(videos), nowhere, SETTINGS, 20, PAINT).to_pylist()
    assert row["status"] == "fatal"
    assert row["error"].startswith("s3://no-such-bucket/x: there is no such bucket; create it, or correct the name (")
    assert row["error"].endswith(
        f"; what is done is kept, the same command goes on from there (on {socket.gethostname()})"
    )
    (tmp_path / "cache" / "ingest" / "work").rmdir()
    (tmp_path / "cache" / "ingest" / "work").write_text("no folder")
    (row,) = decode_planned(planned(videos), Destination(tmp_path / "desk", s3), SETTINGS, 20, PAINT).to_pylist()
    assert (
        f"/cache on {socket.gethostname()}: Not a directory; make room, or set VIDADAPT_CACHE to a larger disk"
        in row["error"]
    )
    assert listing(s3) == {}


def test_a_folder_of_the_same_name_on_another_machine_is_no_destination(videos, tmp_path):
    out = Destination(tmp_path / "out")
    for _ in range(2):  # without the folder, and with one that another ingest made
        (row,) = decode_planned(planned(videos, token="1"), out, SETTINGS, 20, PAINT).to_pylist()
        assert row["status"] == "fatal"
        assert (
            f"{tmp_path}/out is another folder on {socket.gethostname()}; on several machines --out must be a shared"
            in row["error"]
        )
        with ingesting._claimed(out):
            (out.desk / ".parts" / "kept").touch()
    with ingesting._claimed(out) as token:
        plan = planned(videos, token=token, videos=str(tmp_path / "nowhere"))
        (row,) = decode_planned(plan, out, SETTINGS, 20, PAINT).to_pylist()
    assert f"nowhere is not on {socket.gethostname()}; on several machines videos must be" in row["error"]


def test_videos_in_a_store(here, videos, s3, tmp_path):
    (videos / "class 0" / ".hidden").mkdir()
    (videos / "class 0" / ".hidden" / "x.mp4").write_bytes(b"1")
    upload(videos, f"{s3}/videos")
    local = ingest(find_inputs([videos]), tmp_path / "local")
    of_store = find_inputs([f"{s3}/videos"])
    assert of_store.place == f"{s3}/videos"
    for out in (tmp_path / "out", f"{s3}/data"):
        report = ingest(of_store, out)
        assert (report.digest, report.decoded, report.quarantined) == (local.digest, 20, local.quarantined)
        assert ingest(find_inputs([f"{s3}/videos"]), out).decoded == 0
    assert not list((tmp_path / "cache" / "ingest" / "work").iterdir())
    assert ClipStore(f"{s3}/data").index.root == f"{s3}/videos"


def test_listed_videos_in_a_store(here, videos, s3, tmp_path):
    upload(videos, f"{s3}/videos")
    mine = tmp_path / "mine.csv"
    mine.write_text(
        f"path,label\nv_02.mp4,kick\n{s3}/videos/class 1/v_03.mp4,run\nclass 1/v_01.webm,run\ngone.mp4,run\n"
    )
    inputs = find_inputs([mine], root=f"{s3}/videos")
    place = Place.open(f"{s3}/videos/class 1/v_01.mp4")
    place.filesystem.delete_file(place.root)
    out = tmp_path / "out"
    report = ingest(inputs, out)
    assert (report.ok, report.decoded) == (2, 3)
    found = {uri: (row["path"], row["status"], row["error"][:14]) for uri, row in rows(out).items()}
    assert found["v_02.mp4"] == ("class 0/v_02.mp4", "ok", "")
    assert found["class 1/v_01.webm"] == ("class 1/v_01.mp4", "quarantined", "missing: it wa")
    assert found["gone.mp4"] == ("", "quarantined", "missing: no su")
    place.write(b"again")
    again = ingest(find_inputs([mine], root=f"{s3}/videos"), out)
    assert (again.ok, again.decoded) == (3, 1)


def test_a_video_that_changes_while_it_is_fetched_is_told(here, videos, s3, tmp_path):
    upload(videos, f"{s3}/videos")
    inputs = find_inputs([f"{s3}/videos"])
    (Place.open(f"{s3}/videos") / "class 0/v_02.mp4").write(b"longer than it was")
    report = ingest(inputs, tmp_path / "out")
    assert dict(report.quarantined)["class 0/v_02.mp4"] == "cannot be read: it changed in the store while this ran"
    assert ingest(find_inputs([f"{s3}/videos"]), tmp_path / "out").decoded == 1


def test_mistakes_about_stores(s3, tmp_path):
    with pytest.raises(UserError, match="no such folder in the store, or nothing in it"):
        find_inputs([f"{s3}/nowhere"])
    with pytest.raises(UserError, match="copy the list to this machine; --root"):
        find_inputs([f"{s3}/list.csv"])
    (Place.open(s3) / "notes/readme").write(b"1")
    with pytest.raises(UserError, match="no videos here or in its folders"):
        find_inputs([f"{s3}/notes"])
    with pytest.raises(UserError, match="cannot write to s3://no-such-bucket/x: there is no such bucket"):
        script.main(["--videos", str(tmp_path), "--out", "s3://no-such-bucket/x"])


def test_nodes_that_do_not_see_a_video_are_refused(tmp_path):
    batch = {"videos": str(tmp_path), "paths": [str(tmp_path / "unlike")]}
    with pytest.raises(
        UserError, match=r"unlike is not there, or another file, on 192.0.2.1; .*or a store \(--root s3:"
    ):
        batches.check_machines([batch], Destination(tmp_path, "s3://b/x"), lambda _: [["192.0.2.1"]])
