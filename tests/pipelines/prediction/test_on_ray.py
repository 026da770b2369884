"""Ray Data gives the answers that one process gives, whatever becomes of some videos."""

from __future__ import annotations

import pytest

from pipelines.prediction.batch import predict_many, run_here
from pipelines.prediction.on_ray import batch_size, run_on_ray
from pipelines.prediction.results import Targets
from pipelines.prediction.rows import FAILED, read_rows
from pipelines.prediction.scoring import ScoreRequest
from pipelines.prediction.videos import list_videos
from pipelines.prediction.work import BatchRequest
from tests.helpers.videofiles import write_video


def test_ray_gives_the_same_rows(toy_run, ray_session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", frames=40)
    write_video(tmp_path / "b.mp4", frames=12)
    (tmp_path / "bad.mp4").write_bytes(b"bad")
    (tmp_path / "list.csv").write_text("video,start,end\na.mp4,,\na.mp4,0.5,1.0\na.mp4,0.25,0.5\nb.mp4,,\nbad.mp4,,\n")
    request = BatchRequest(str(toy_run), labels=("red car", "a cat"), score=ScoreRequest(2), device="cpu")
    found = {}
    for name, run in (("here", run_here), ("ray", run_on_ray)):
        targets = Targets.of(f"{name}.parquet", f"{name}-features")
        summary = predict_many(list_videos(["list.csv", "gone.mp4"]), request, targets, [].append, run=run)
        assert (summary.ok, summary.failed) == (4, 2)
        found[name] = list(read_rows(tmp_path / f"{name}.parquet"))
    for here, there in zip(found["here"], found["ray"], strict=True):
        assert (here.video, here.start, here.end, here.reason) == (there.video, there.start, there.end, there.reason)
        assert dict(here.topk) == pytest.approx(dict(there.topk), abs=1e-5)
    assert [row.status for row in found["ray"]][-2:] == [FAILED, FAILED]


def test_batches_are_as_many_as_keep_all_cpus_busy():
    assert [batch_size(count, 2_000_000, cpus=2) for count in (3, 80, 100_000)] == [1, 10, 32]
    assert batch_size(100_000, 200_000_000, cpus=2) == 1
