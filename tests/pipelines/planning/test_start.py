"""Where training starts from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.planning import start
from pipelines.records.run_file import Start
from pipelines.storage.cache import local_run
from pipelines.storage.place import Place
from tests.helpers.fakes import FakeStore, leave_json, record_json
from vlmodels.errors import UserError


def test_a_run_in_a_store_is_started_from(s3):
    for name in ("run.json", "adapter.safetensors", "predictions.npz", "report/report.html"):
        (Place.open(s3) / name).write(b"1")
    assert start.start_file(s3) == Path(local_run(s3)) / "adapter.safetensors"
    with pytest.raises(UserError, match=rf"{s3}/report: no run there; give the folder of one run"):
        start.start_file(f"{s3}/report")


@pytest.fixture
def stores():
    store = FakeStore(count=4)
    store.name, store.digest = "k400", "d1"
    return [store]


def notes_of(folder, record, stores):
    return start.start_notes(leave_json(folder, record) / "adapter.safetensors", stores)


def test_a_start_that_was_trained_on_the_same_data_is_noted(tmp_path, stores):
    record = record_json(facts={"data_digest": "d1"}, name="first")
    (note,) = notes_of(tmp_path, record, stores)
    assert note.startswith("first, from which this starts, was trained on k400: its training videos may be")
    assert notes_of(tmp_path, record_json(facts={"data_digest": "d2"}, name="second"), stores) == []
    assert start.start_notes(tmp_path / "adapter.safetensors", stores) == []
    assert start.start_notes(None, stores) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 1}, r"written by an older version \(run\.json has schema 1, this version reads 2\)"),
        ({"seed": "one"}, r"its run\.json cannot be used \(seed: .*\)"),
    ],
)
def test_a_start_whose_record_is_refused_is_noted(tmp_path, stores, changes, reason):
    folder = leave_json(tmp_path, record_json(facts={"data_digest": "d1"}, name="first") | changes)
    (note,) = start.start_notes(folder / "adapter.safetensors", stores)
    known = "whether its training videos are among those scored is not known"
    assert re.fullmatch(f"the start first: {reason}: {known}", note)
    assert start.about_start(folder / "adapter.safetensors") == Start(name="", protocol="", dataset="", data_digest="")
