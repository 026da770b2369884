"""One batch of ingest: what it leaves if the disk is full, or if its machine lacks a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.ingestion.batch import Batch, VideoSource
from pipelines.ingestion.batch_task import decode_batch, decode_row
from pipelines.ingestion.claim import claimed
from pipelines.ingestion.clip_facts import FileStat
from pipelines.ingestion.decode import DecodeRequest
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.isolation import Decoded
from pipelines.storage.place import Place
from tests.helpers.fake_decoders import paint
from tests.helpers.ingesting import PAINT, SETTINGS
from vlmodels.span import Cuts, Span

NAME = "0123456789abcdef"
REQUEST = DecodeRequest(SETTINGS, time_limit_s=20, decode=PAINT)


def batch_of(folder, **changes):
    sources = tuple(VideoSource(path.name, str(path)) for path in sorted(folder.rglob("*.mp4")))
    return Batch(**{"name": NAME, "videos": str(folder), "sources": sources} | changes)


def decoded(batch, destination):
    return decode_row(pa.Table.from_pylist([batch.to_row()]), destination, REQUEST).to_pylist()


@pytest.fixture
def out(tmp_path):
    for name in ("shards", ".parts"):
        (tmp_path / "out" / name).mkdir(parents=True)
    return tmp_path / "out"


def painted(paths, _):
    for path in paths:
        yield Decoded(*paint(path, SETTINGS)) if "07" not in path else Decoded(None, None, "bad")


@pytest.mark.parametrize("shape", ["2x16x16", "2x16x24"])
def test_a_full_disk_leaves_nothing_half_written(videos, out, shape):
    """One of two shards lies on a disk without room."""
    part = out / "shards" / f"{NAME}-{shape}.arrow.{os.getpid()}.tmp"
    part.symlink_to("/dev/full")
    (fact,) = decode_batch(batch_of(videos), Destination(out), painted)
    assert fact.status == "fatal"
    assert "No space left on device; free some space or choose another --out" in fact.error
    assert not list((out / "shards").iterdir())
    assert not list((out / ".parts").iterdir())


def test_a_disk_that_fills_up_while_clips_are_written(videos, out):
    def decoder(paths, cuts):
        for number, result in enumerate(painted(paths, cuts)):
            if number == 12:  # both shards are begun
                assert len(list((out / "shards").iterdir())) == 2
                raise OSError(28, os.strerror(28))
            yield result

    (fact,) = decode_batch(batch_of(videos), Destination(out), decoder)
    assert "No space left on device; free some space or choose another --out" in fact.error
    assert not list((out / "shards").iterdir())
    assert not list((out / ".parts").iterdir())


def test_a_copy_that_cannot_be_looked_at_costs_one_clip(here, out, tmp_path):
    memory = f"memory://{tmp_path.name}"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (Place.open(memory) / name).write(name.encode())

    def decoder(paths, _):
        for path in paths:
            result = Decoded(*paint(path, SETTINGS))
            if "b.mp4" in path:  # a link to itself, which can be neither followed nor opened
                Path(path).unlink()
                Path(path).symlink_to(path)
            yield result

    sources = tuple(VideoSource(name, name, FileStat(5, 0)) for name in ("a.mp4", "b.mp4", "c.mp4"))
    facts = decode_batch(Batch(NAME, memory, sources), Destination(out), decoder)
    assert [fact.status for fact in facts] == ["ok", "quarantined", "ok"]
    assert facts[1].error.startswith("missing: it was in the store")


def test_a_stored_video_is_fetched_once_for_its_parts(here, out, tmp_path):
    memory = f"memory://{tmp_path.name}"
    for name in ("a.mp4", "b.mp4"):
        (Place.open(memory) / name).write(name.encode())
    asked = []

    def decoder(paths, cuts):
        for path, some in zip(paths, cuts, strict=True):
            asked.append((len(list(Path(path).parent.glob("*-a.mp4"))), some))
            for _ in some.spans if some else (None,):
                yield Decoded(*paint(path, SETTINGS))

    spans = (Span(0, 1), Span(1, 2))
    sources = [VideoSource(span.after("a.mp4"), "a.mp4", FileStat(5, 0), span) for span in spans]
    sources.append(VideoSource("b.mp4", "b.mp4", FileStat(5, 0)))
    facts = decode_batch(Batch(NAME, memory, tuple(sources)), Destination(out), decoder)
    assert [(fact.clip_id, fact.status) for fact in facts] == [(source.clip_id, "ok") for source in sources]
    assert asked == [(1, Cuts(spans)), (0, None)]


def test_a_batch_that_cannot_be_delivered_ends_the_run(here, videos, s3, s3_server, tmp_path):
    nowhere = Destination(tmp_path / "folder", "s3://no-such-bucket/x")
    (row,) = decoded(batch_of(videos), nowhere)
    assert row["status"] == "fatal"
    assert row["error"].startswith("s3://no-such-bucket/x: there is no such bucket; create it, or correct the name (")
    assert row["error"].endswith(f"continues from there (on {socket.gethostname()})")
    (tmp_path / "cache" / "ingest" / "work").rmdir()
    (tmp_path / "cache" / "ingest" / "work").write_text("no folder")
    (row,) = decoded(batch_of(videos), Destination(tmp_path / "folder", s3))
    assert (
        f"/cache on {socket.gethostname()}: Not a directory; make room, or set VIDADAPT_CACHE to a larger disk"
        in row["error"]
    )
    assert s3_server.requests(s3) == []


def test_a_folder_of_the_same_name_on_another_machine_is_no_destination(here, videos, tmp_path):
    out = Destination(tmp_path / "out")
    for _ in range(2):  # without the folder, and with one that another ingest made
        (row,) = decoded(batch_of(videos, token="1"), out)
        assert row["status"] == "fatal"
        assert (
            f"{tmp_path}/out is another folder on {socket.gethostname()}; on several machines --out must be a shared"
            in row["error"]
        )
        with claimed(out):
            (out.folder / ".parts" / "kept").touch()
    with claimed(out) as claim:
        (row,) = decoded(batch_of(videos, token=claim.token, videos=str(tmp_path / "nowhere")), out)
    assert f"nowhere is not on {socket.gethostname()}; on several machines videos must be" in row["error"]
