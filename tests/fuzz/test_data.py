"""Damaged shards, indexes and manifests, through their public readers: the same clips, or one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.clip_store import ClipStore
from tests.fuzz.damage import changed, damaged, deadline, seeded
from tests.helpers.ingesting import in_process
from vlmodels.errors import UserError


def read_all(folder):
    store = ClipStore(folder)
    rows = [row for row in store.manifest.to_pylist() if row["status"] == "ok"]
    return {row["uri"]: (row["label"], np.array(store.frames(row["clip_id"]))) for row in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name in ("wave", "clap"):
        (folder / "videos" / name).mkdir(parents=True)
        for number in range(2):
            (folder / "videos" / name / f"{number}.mp4").write_bytes(f"{name} {number}".encode())
    with in_process() as runner:
        runner.ingest(folder / "videos", folder / "data")
    return folder / "data", read_all(folder / "data")


@pytest.mark.parametrize("kind", ["index", "index bytes", "manifest", "shard"])
@seeded
@given(data=st.data())
def test_ingested_data(whole, kind, data):
    source, expected = whole
    case = source.parent / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(source, case)
    path = {"manifest": case / "manifest.parquet", "shard": next((case / "shards").iterdir())}.get(
        kind, case / "index.json"
    )
    if kind == "index":
        path.write_text(json.dumps(data.draw(changed(json.loads(path.read_text())))))
    else:
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        with deadline():
            found = read_all(case)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found.keys() == expected.keys()
        for uri, (label, frames) in expected.items():
            assert found[uri][0] == label
            assert np.array_equal(found[uri][1], frames)
