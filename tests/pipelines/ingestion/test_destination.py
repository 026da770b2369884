"""Ingest into a store, and of videos that lie in one: the same result as on a disk, whatever is cut off in between."""

from __future__ import annotations

import os
import shutil
import socket

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from pipelines import ingest as script
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import OWNER, Destination
from pipelines.shards.clip_store import ClipStore
from pipelines.shards.index import Index
from pipelines.storage.place import Place
from pipelines.videos.inputs import find_inputs
from vlmodels.errors import UserError

OTHER = DecodeSettings(frames=4, size=16, pool=1)


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
def away():
    """Forget all that this machine keeps, as if the next call came from another one."""

    def forget():
        shutil.rmtree(os.environ["VIDADAPT_CACHE"], ignore_errors=True)

    return forget


def test_a_store_gets_what_a_folder_would(here, videos, s3, tmp_path, away):
    inputs = find_inputs([videos])
    local, stored = here.ingest(inputs, tmp_path / "out"), here.ingest(inputs, s3)
    assert stored.digest == local.digest
    assert listing(s3) == on_disk(tmp_path / "out")
    assert stored.manifest == f"{s3}/manifest.parquet"
    store = ClipStore(s3)
    store.verify()
    assert store.index.shards == Index.read(tmp_path / "out").shards
    assert not list((tmp_path / "cache" / "ingest" / "work").iterdir())
    away()
    again = here.ingest(inputs, s3)
    assert (again.decoded, again.kept, again.digest) == (0, 20, local.digest)
    assert listing(s3) == on_disk(tmp_path / "out")


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_cut_off_it_continues_from_any_machine(here, videos, s3, tmp_path, away, batches, elsewhere):
    inputs = find_inputs([videos])
    with pytest.raises(KeyboardInterrupt):
        here.ingest(inputs, s3, run_batches=here.stopped_after(8 * batches))
    (Place.open(s3) / "shards/0123456789abcdef-2x16x16.arrow").write(b"of a machine that was lost before its part")
    with pytest.raises(UserError, match="no index"):
        ClipStore(s3)
    if elsewhere:
        away()
    with pytest.raises(UserError, match=r"other settings .*choose another --out, or --overwrite"):
        here.ingest(inputs, s3, OTHER)
    resumed = here.ingest(inputs, s3)
    assert resumed.kept >= 8 * batches
    assert resumed.digest == here.ingest(inputs, tmp_path / "whole").digest
    assert listing(s3) == on_disk(tmp_path / "whole")


def test_a_shard_that_is_lost_or_cut_is_made_again(here, videos, s3):
    inputs = find_inputs([videos])
    first = here.ingest(inputs, s3)
    lost, cut, *_ = ClipStore(s3).index.shards
    place = Place.open(s3)
    place.filesystem.delete_file((place / f"shards/{lost.file}").root)
    (place / f"shards/{cut.file}").write(b"half")
    again = here.ingest(inputs, s3)
    assert (again.decoded, again.digest) == (lost.rows + cut.rows, first.digest)
    ClipStore(s3).verify()


def test_a_store_that_another_ingest_has_taken_over_is_left_alone(here, videos, s3, away):
    inputs, said = find_inputs([videos]), []

    def overtaken(*args):
        yield from here.run_batches(*args)
        away()
        with pytest.raises(KeyboardInterrupt):  # a second machine begins, and sets to work
            here.ingest(inputs, s3, overwrite=True, say=said.append, run_batches=cut_off)
        (Place.open(s3) / foreign).write(b"of the second")
        before.update(listing(s3))

    def cut_off(*args):
        raise KeyboardInterrupt
        yield

    foreign, before = "shards/0123456789abcdef-2x16x16.arrow", {}
    with pytest.raises(UserError) as error:
        here.ingest(inputs, s3, run_batches=overtaken)
    host = f"on {socket.gethostname()}, process {os.getpid()}, since 20"
    assert str(error.value).startswith(f"another ingest ({host}")
    assert str(error.value).endswith(f" has taken over {s3}; run this one again when it has ended")
    assert listing(s3) == before
    assert foreign in before
    assert len(said) == 1
    assert said[0].startswith(f"taking over {s3} from an ingest that was cut off, or still runs ({host}")
    said.clear()
    for _ in range(2):  # the last one to come continues, and leaves no claim
        here.ingest(inputs, s3, say=said.append)
    assert len(said) == 1
    assert not any("owner" in name for name in listing(s3))
    assert foreign not in listing(s3)


class Watched(Destination):
    """A destination that calls ``on_sizes`` with its store before each listing of the shards there."""

    def shard_sizes(self):
        self.on_sizes(Place.open(self.uri))
        return super().shard_sizes()


def test_the_last_moment_to_find_out_is_before_the_index(here, videos, s3):
    asked = []

    class Overtaken(Watched):
        def on_sizes(self, place):
            asked.append(1)
            if len(asked) == 2:  # of the first, the one when it publishes
                place.filesystem.delete_file((place / OWNER).root)

    with pytest.raises(UserError, match=rf"^another ingest has taken over {s3}; run this one again when it has ended"):
        here.ingest(videos, Overtaken.at(s3))
    assert "index.json" not in listing(s3)


def test_wrong_settings_take_over_nothing(here, videos, s3):
    here.ingest(find_inputs([videos]), s3)
    with pytest.raises(UserError, match="other settings"):
        here.ingest(videos, s3, OTHER)
    assert not any("owner" in name for name in listing(s3))


def test_a_store_that_keeps_no_times(here, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    out = f"memory://{tmp_path.name}/data"
    place = Place.open(out)
    first = here.ingest(find_inputs([videos]), out)
    assert place.filesystem.get_file_info(f"{place.root}/index.json").mtime_ns is None
    again = here.ingest(find_inputs([videos]), out)
    assert (again.decoded, again.kept, again.digest) == (0, 20, first.digest)


def test_overwrite_takes_the_index_first(here, videos, s3):
    class Interrupted(Watched):
        def on_sizes(self, place):
            raise KeyboardInterrupt

    here.ingest(videos, s3)
    with pytest.raises(KeyboardInterrupt):
        here.ingest(videos, Interrupted.at(s3), overwrite=True)
    assert "index.json" not in listing(s3)
    report = here.ingest(videos, s3, OTHER, overwrite=True)
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
        here.ingest(find_inputs([tmp_path / f"{name}.txt"], [labels], root=videos), s3)
    kept = {name for name in listing(s3) if name.startswith("lists/")}
    assert kept == {"lists/new.txt", "lists/labels.csv", "lists/lists.json"}


def test_a_wrong_bucket_is_found_before_anything_else(here, videos, s3):
    bucket = "s3://no-such-bucket/data"
    with pytest.raises(UserError, match=r"cannot write to s3://no-such-bucket/data: there is no such bucket"):
        here.ingest(find_inputs([videos]), bucket)
    with pytest.raises(UserError, match=r"s3://no-such-bucket/v cannot be read: there is no such bucket"):
        find_inputs(["s3://no-such-bucket/v"])
    assert here.batch_sizes == []


def test_videos_in_a_store(here, videos, s3, tmp_path):
    (videos / "class 0" / ".hidden").mkdir()
    (videos / "class 0" / ".hidden" / "x.mp4").write_bytes(b"1")
    upload(videos, f"{s3}/videos")
    local = here.ingest(find_inputs([videos]), tmp_path / "local")
    of_store = find_inputs([f"{s3}/videos"])
    assert of_store.place == f"{s3}/videos"
    for out in (tmp_path / "out", f"{s3}/data"):
        report = here.ingest(of_store, out)
        assert (report.digest, report.decoded, report.quarantined) == (local.digest, 20, local.quarantined)
        assert here.ingest(find_inputs([f"{s3}/videos"]), out).decoded == 0
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
    report = here.ingest(inputs, out)
    assert (report.ok, report.decoded) == (2, 3)
    found = {uri: (row["path"], row["status"], row["error"][:14]) for uri, row in rows(out).items()}
    assert found["v_02.mp4"] == ("class 0/v_02.mp4", "ok", "")
    assert found["class 1/v_01.webm"] == ("class 1/v_01.mp4", "quarantined", "missing: it wa")
    assert found["gone.mp4"] == ("", "quarantined", "missing: no su")
    place.write(b"again")
    again = here.ingest(find_inputs([mine], root=f"{s3}/videos"), out)
    assert (again.ok, again.decoded) == (3, 1)


def test_a_video_that_changes_while_it_is_fetched_is_set_aside(here, videos, s3, tmp_path):
    upload(videos, f"{s3}/videos")
    inputs = find_inputs([f"{s3}/videos"])
    (Place.open(f"{s3}/videos") / "class 0/v_02.mp4").write(b"longer than it was")
    report = here.ingest(inputs, tmp_path / "out")
    assert dict(report.quarantined)["class 0/v_02.mp4"] == "cannot be read: it changed in the store while this ran"
    assert here.ingest(find_inputs([f"{s3}/videos"]), tmp_path / "out").decoded == 1


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
