"""Batches on Ray: how many at a time, and on which machines."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from pipelines.ingestion.batch import Batch, VideoSource
from pipelines.ingestion.batches import CpuRoom, check_machines, cpu_room, run_on_ray, workers_for
from pipelines.ingestion.clip_facts import FileStat
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.ingest import ingest
from pipelines.videos.inputs import find_inputs
from tests.helpers.fake_cluster import FakeCluster, machine
from tests.helpers.ingesting import PAINT, SETTINGS
from vlmodels.errors import UserError
from vlmodels.span import Span


@pytest.mark.parametrize(
    ("wanted", "batches", "room", "count"),
    [
        (None, 9, CpuRoom(1, 2), 2),
        (5, 9, CpuRoom(1, 2), 2),
        (1, 9, CpuRoom(1, 2), 1),
        (None, 1, CpuRoom(1, 2), 1),
        (None, 9, CpuRoom(1, 4, grows=True, most=2), 4),
        (None, 9, CpuRoom(1, 0, grows=True), 9),
        (5, 9, CpuRoom(1, 0, grows=True), 5),
        (20, 9, CpuRoom(1, 2, grows=True), 9),
        (None, 9, CpuRoom(1, 0, grows=True, most=3), 3),
    ],
)
def test_as_many_workers_as_there_are_cpus_or_may_come(wanted, batches, room, count):
    assert workers_for(wanted, batches, room) == count


@pytest.mark.parametrize("room", [CpuRoom(1, 0), CpuRoom(1, 0, grows=True, most=0)])
def test_a_cluster_without_cpus_is_refused(room):
    with pytest.raises(UserError, match="Ray has no CPU to decode with"):
        workers_for(None, 9, room)


def test_only_machines_that_are_up_count():
    down = machine("c", CPU=50.0) | {"Alive": False}
    assert cpu_room(FakeCluster([machine("a", CPU=2.0), machine("b", memory=9.0), down])) == CpuRoom(2, 2)


def test_machines_that_do_not_see_a_file_are_refused(tmp_path):
    batch = Batch("name", str(tmp_path), (VideoSource("id", "unlike"), VideoSource("other", "never looked at")))
    stored = Destination(tmp_path, "s3://b/x")

    def blind_to(name):
        return lambda paths: [["192.0.2.1"] if path.endswith(name) else [] for path in paths]

    with pytest.raises(
        UserError, match=r"unlike is not there, or another file, on 192.0.2.1; .*or a store \(--root s3:"
    ):
        check_machines(batch, stored, blind_nodes=blind_to("unlike"))
    with pytest.raises(UserError, match=rf"{tmp_path} is not the same folder on 192.0.2.1; .*--out must be a shared"):
        check_machines(batch, Destination(tmp_path), blind_nodes=blind_to("lock"))
    check_machines(batch, Destination(tmp_path), blind_nodes=blind_to("never looked at"))
    in_store = Batch("name", "s3://b/v", (VideoSource("id", "unlike", FileStat(1, 2)),))
    check_machines(in_store, stored, blind_nodes=blind_to("unlike"))


@pytest.mark.ray
def test_over_ray_more_workers_than_cpus_where_machines_may_come(ray_session, videos, tmp_path):
    said, measured = [], []

    def measure_room():
        measured.append(cpu_room())
        return replace(measured[0], grows=True, most=None)

    report = ingest(
        find_inputs([videos]),
        tmp_path / "out",
        SETTINGS,
        decode=PAINT,
        say=said.append,
        run_batches=partial(run_on_ray, measure_room=measure_room),
    )
    assert (report.ok, report.decoded) == (19, 20)
    assert measured == [CpuRoom(machines=1, cpus=2)]
    assert said[0] == "decoding 20 clips in 3 batches with 3 workers"
    assert sum(clips for _, clips in report.machines) == 20


def test_a_batch_travels_in_a_table():
    sources = (VideoSource("1", "a [x].mp4", None, Span(0, 1.5)), VideoSource("2", "f", None, None, 25.0))
    parts = Batch("name", "/v", sources)
    assert Batch.from_row(parts.to_row()) == parts
    local = Batch("name", "/videos", (VideoSource("1", "a.mp4"), VideoSource("2", "b.mp4")), token="t")
    stored = Batch("name", "s3://b/v", (VideoSource("1", "a.mp4", FileStat(3, 4)),))
    for batch in (local, stored):
        assert Batch.from_row(batch.to_row()) == batch
    assert (local.is_stored, stored.is_stored) == (False, True)
