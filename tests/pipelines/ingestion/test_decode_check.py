"""Batches that are decoded and not stored."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.ingestion.batch import Batch, VideoSource
from pipelines.ingestion.clip_facts import FileStat
from pipelines.ingestion.decode_check import check_batch, read_results
from pipelines.ingestion.isolation import Decoded
from pipelines.storage.place import Place
from pipelines.videos.remote import AHEAD
from vlmodels.errors import UserError


def test_a_few_copies_lie_here_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    memory = f"memory://{tmp_path.name}"

    def copies_here(files, _):
        for file in files:
            yield Decoded(None, None, str(len(list(Path(file).parent.iterdir()))))

    names = [f"{i}.mp4" for i in range(4 * AHEAD)]
    for name in names:
        (Place.open(memory) / name).write(b"x")
    batch = Batch("0", memory, tuple(VideoSource("", name, FileStat(1, 0)) for name in names))
    results = list(check_batch(batch, copies_here))
    assert [result.path for result in results] == names
    found = [int(result.error) for result in results]
    assert 1 <= max(found) <= AHEAD


def test_local_files_stay(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    batch = Batch("0", str(tmp_path), (VideoSource("", "a.mp4"),))
    (result,) = check_batch(batch, lambda files, _: [Decoded(None, None, files[0])])
    assert (result.path, result.error) == ("a.mp4", str(tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").exists()


def test_a_batch_that_could_not_be_checked_ends_the_run():
    with pytest.raises(UserError, match="no room"):
        read_results(pa.Table.from_pylist([{"path": "", "error": "no room"}]))
