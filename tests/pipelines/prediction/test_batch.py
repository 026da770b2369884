"""Many videos: results, what is kept after a kill, what is refused, and rows of videos that break their decoder."""

from __future__ import annotations

import csv
import fcntl
import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.prediction.batch import predict_many, run_here
from pipelines.prediction.decode import Look
from pipelines.prediction.model import open_model
from pipelines.prediction.results import Targets
from pipelines.prediction.rows import FAILED, NONE, OK
from pipelines.prediction.scoring import Scored, ScoreRequest
from pipelines.prediction.stored_features import open_embeddings
from pipelines.prediction.videos import list_videos
from pipelines.prediction.work import BatchRequest
from tests.helpers.videofiles import truncate, write_video
from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.zeroshot import ZeroShot
from vlmodels.predictor import load
from vlmodels.span import Span
from vlmodels.toy import TOY_WEIGHTS

DIM = 128  # of the toy backbone
LABELS = ("red car", "sailing boat", "a cat")


@pytest.fixture
def videos(tmp_path, monkeypatch):
    """Six files that a fake decoder, or none, reads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v").mkdir()
    for number in range(6):
        (tmp_path / "v" / f"{number}.mp4").write_bytes(bytes([number]))
    return tmp_path


class Fake:
    """Scores without decoding, two videos at a time and the last ones first; ``stop`` after some of them."""

    def __init__(self, dim=DIM, stop=99, error=KeyboardInterrupt):
        self.dim, self.stop, self.error, self.asked = dim, stop, error, []

    def __call__(self, work, _):
        for number, index in enumerate(reversed(work.pending)):
            if number == self.stop:
                raise self.error
            path = work.listing.path(work.listing[index].video)
            self.asked.append(path.name)
            stat = path.stat()
            look = Look(index, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
            feature = np.full(self.dim, index, np.float32) if work.score.features else None
            if stat.st_size > 5:
                yield [Scored(replace(look, reason="too large"), FAILED)]
            else:
                yield [Scored(look, OK, ((LABELS[index % 3], 0.5), (LABELS[1], 0.25)), feature)]


@functools.cache
def open_once(given, *, weights, labels):
    return open_model(given, weights=weights, labels=labels)


def predict(toy_run, run, said=None, videos=("v",), labels=LABELS, topk=2, **targets):
    request = BatchRequest(str(toy_run), labels=labels, score=ScoreRequest(topk), device="cpu")
    goal = Targets.of(targets.pop("out", "out.csv"), targets.pop("embeddings", None), **targets)
    say = (said if said is not None else []).append
    return predict_many(list_videos(videos), request, goal, say, run=run, open_model=open_once)


def table(path="out.csv"):
    with Path(path).open(newline="") as file:
        return [(row["video"], row["status"], row["label"]) for row in csv.DictReader(file)]


def test_rows_are_in_the_order_of_the_listing(toy_run, videos):
    (videos / "v" / "2.mp4").write_bytes(b"too large")
    summary = predict(toy_run, Fake())
    assert table()[:3] == [("v/0.mp4", OK, LABELS[0]), ("v/1.mp4", OK, LABELS[1]), ("v/2.mp4", FAILED, "")]
    assert (summary.ok, summary.failed, summary.reasons) == (5, 1, (("too large", 1),))
    assert summary.where == ("out.csv",)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, UserError("x")])
def test_what_is_done_is_kept_and_not_done_again(toy_run, videos, error):
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        predict(toy_run, Fake(stop=4, error=error))
    assert not Path("out.csv").exists()
    said, again = [], Fake()
    summary = predict(toy_run, again, said)
    assert again.asked == ["1.mp4", "0.mp4"]
    assert "4 of 6 videos are done already" in said[0]
    assert len(table()) == summary.ok == 6
    nothing = Fake()
    predict(toy_run, nothing)
    assert not nothing.asked


def test_the_table_that_a_kill_leaves_is_known(toy_run, videos):
    predict(toy_run, Fake())
    shutil.copy2("out.csv", "earlier.csv")
    (videos / "v" / "9.mp4").write_bytes(b"new")
    predict(toy_run, Fake())
    Path("earlier.csv").replace("out.csv")  # as if killed before the new one took its place
    predict(toy_run, Fake())
    assert len(table()) == 7


def test_no_table_is_left_that_the_next_command_does_not_know(toy_run, videos):
    with pytest.raises(KeyboardInterrupt):
        predict(toy_run, Fake(stop=4))
    in_the_way = videos / ".out.csv.parts" / "written.json"
    in_the_way.mkdir()
    with pytest.raises(UserError, match="cannot write"):
        predict(toy_run, Fake())
    in_the_way.rmdir()
    predict(toy_run, Fake())
    assert len(table()) == 6


def test_a_line_that_a_kill_cut_off_is_done_again(toy_run, videos):
    predict(toy_run, Fake())
    journal = videos / ".out.csv.parts" / "rows.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    again = Fake()
    predict(toy_run, again)
    assert again.asked == ["0.mp4"]
    assert len(table()) == 6


def test_new_changed_and_failed_videos_are_done(toy_run, videos):
    (videos / "v" / "2.mp4").write_bytes(b"too large")
    predict(toy_run, Fake())
    (videos / "v" / "9.mp4").write_bytes(b"new")
    (videos / "v" / "1.mp4").write_bytes(b"new")
    again = Fake()
    assert predict(toy_run, again).failed == 1
    assert again.asked == ["9.mp4", "1.mp4"]
    predict(toy_run, retry := Fake(), retry=True)
    assert retry.asked == ["2.mp4"]


@pytest.mark.parametrize(("settings", "name"), [({"labels": LABELS[:2]}, "labels"), ({"topk": 1}, "topk")])
def test_other_settings_are_refused_or_begin_anew(toy_run, videos, settings, name):
    predict(toy_run, Fake())
    with pytest.raises(UserError, match=f"{name}.*--overwrite"):
        predict(toy_run, Fake(), **settings)
    predict(toy_run, again := Fake(), overwrite=True, **settings)
    assert len(again.asked) == 6


def test_a_file_of_somebody_else_is_left_alone(toy_run, videos):
    Path("out.csv").write_text("mine")
    with pytest.raises(UserError, match="not written by this command"):
        predict(toy_run, Fake())
    predict(toy_run, Fake(), overwrite=True)
    Path("out.csv").write_text("changed")
    with pytest.raises(UserError, match="was changed since"):
        predict(toy_run, Fake())
    assert Path("out.csv").read_text() == "changed"


def test_two_processes_do_not_write_the_same(toy_run, videos):
    predict(toy_run, Fake())
    with (videos / ".out.csv.parts" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being written by process"):
            predict(toy_run, Fake())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"out": "out.txt"}, ".csv or .parquet"),
        ({"out": "s3://b/x.csv"}, "of this machine"),
        ({"out": "v/0.mp4/out.csv"}, "cannot write"),
        ({"out": "x" * 260 + ".csv"}, "cannot write"),
    ],
)
def test_places_that_cannot_be_written(toy_run, videos, targets, message):
    with pytest.raises(UserError, match=message):
        predict(toy_run, Fake(), **targets)


def test_features_of_each_video_once(toy_run, videos):
    with pytest.raises(KeyboardInterrupt):
        predict(toy_run, Fake(stop=3), embeddings="emb")
    (videos / "emb" / "part-000099.arrow").write_bytes(b"of a killed process, whose rows do not count")
    (videos / "v" / "5.mp4").write_bytes(b"new")
    predict(toy_run, Fake(), embeddings="emb", out="out.csv")
    found = {}
    for block in open_embeddings("emb").blocks():
        for name, feature in zip(block.facts["video"].to_pylist(), block.features, strict=True):
            assert name not in found
            found[name] = feature[0]
    assert found == {f"v/{number}.mp4": number for number in range(6)}
    identity = open_embeddings("emb").identity
    assert (identity.model, identity.dim) == (str(toy_run), DIM)


def test_features_say_whether_they_are_whole(toy_run, videos):
    with pytest.raises(KeyboardInterrupt):
        predict(toy_run, Fake(stop=2), embeddings="emb")
    assert "2 of 6 videos" in open_embeddings("emb").unfinished
    predict(toy_run, Fake(), embeddings="emb")
    assert open_embeddings("emb").unfinished == ""
    (videos / "v" / "9.mp4").write_bytes(b"new")
    with pytest.raises(KeyboardInterrupt):
        predict(toy_run, Fake(stop=0), embeddings="emb")
    assert "6 of 7 videos" in open_embeddings("emb").unfinished


def test_features_alone(toy_run, videos):
    summary = predict(toy_run, Fake(), out=None, embeddings="emb")
    assert summary.where == ("emb",)
    with pytest.raises(UserError, match="labels"):
        predict(toy_run, Fake(), out=None, embeddings="emb", labels=LABELS[:2])


def test_a_folder_gets_a_table(toy_run, videos):
    predict(toy_run, Fake(), out="results")
    assert (videos / "results" / "predictions.parquet").is_file()


def test_videos_that_break_their_decoder_are_rows(toy_run, videos):
    for name in ("crash", "killed", "hang", "raise"):
        (videos / "v" / f"{name}.mp4").write_bytes(b"x")
    fake = BatchRequest(
        str(toy_run), labels=LABELS, decode="tests.pipelines.prediction.moody:decode", time_limit_s=3, device="cpu"
    )
    summary = predict_many(list_videos(["v", "gone.mp4"]), fake, Targets.of("out.csv"), [].append, run=run_here)
    states = {name: status for name, status, _ in table()}
    assert [name for name, status in states.items() if status == FAILED] == [
        "v/crash.mp4", "v/hang.mp4", "v/killed.mp4", "v/raise.mp4", "gone.mp4",
    ]  # fmt: skip
    assert summary.ok == 6


def test_answers_are_those_of_the_predictor(toy_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", frames=50)
    Path("list.csv").write_text("video,start,end\na.mp4,,\na.mp4,0.5,1.5\na.mp4,1.0,1.25\na.mp4,7.5,8\n")
    request = BatchRequest(str(toy_run), labels=LABELS, score=ScoreRequest(3, threshold=0.99), device="cpu")
    rows = []
    targets = Targets.of("out.parquet", "emb")
    predict_many(list_videos(["list.csv"]), request, targets, [].append, rows.append, run=run_here)
    predictor = load(toy_run)
    for row, (start, end) in zip(rows, [(None, None), (0.5, 1.5), (1.0, 1.25)], strict=False):
        found = predictor(tmp_path / "a.mp4", LABELS, 3, start=start, end=end)
        assert dict(row.topk) == pytest.approx({one.label: one.probability for one in found}, abs=1e-6)
        assert (row.start, row.end, row.status) == (start, end, NONE)
    assert rows[3].status == FAILED
    features = np.concatenate([block.features for block in open_embeddings("emb").blocks()])
    assert len(features) == 3
    np.testing.assert_allclose(features[0], predictor.embed([predictor.read_views("a.mp4")])[0], atol=1e-5)
    assert json.loads(Path("emb/embeddings.json").read_text())["views"]["frames"] == 4


def test_signatures_of_addresses_are_not_written_and_still_tell_two_apart(toy_run, videos):
    addresses = [f"http://127.0.0.1:9/a.mp4?X-Amz-Signature=SECRET{number}" for number in range(2)]
    said = []
    predict(toy_run, run_here, said, addresses, embeddings="features")
    with Path("out.csv").open(newline="") as file:
        assert len({row["video"] for row in csv.DictReader(file)}) == 2
    written = [path for path in videos.rglob("*") if path.is_file() and path.parent != videos / "v"]
    assert len(written) > 4
    assert [path for path in written if b"SECRET" in path.read_bytes()] == []
    predict(toy_run, None, said, addresses, embeddings="features")
    assert "2 of 2 videos are done already, and kept" in said


def test_a_row_with_wrong_times_is_not_taken_for_the_whole_video(toy_run, videos):
    Path("list.csv").write_text("video,start_s,end_s\nv/0.mp4,5,2\nv/0.mp4,,\n")
    for asked in (["0.mp4"], []):
        run = Fake()
        predict(toy_run, run, videos=["list.csv"])
        assert [status for _, status, _ in table()] == [FAILED, OK]
        assert run.asked == asked


def test_windows_are_rows_and_features_and_done_once(toy_run, videos):
    write_video(videos / "long.mp4", frames=100)
    cut = write_video(videos / "cut.mp4", frames=250, options={"g": "10"}, container={"movflags": "faststart"})
    truncate(cut, 0.6)
    request = BatchRequest(str(toy_run), labels=LABELS, device="cpu", windows=(1.0, 0.5))
    listing = list_videos(["long.mp4", "cut.mp4", "v/0.mp4"])
    targets = Targets.of("out.csv", "emb")
    summary = predict_many(listing, request, targets, [].append)
    rows = table()
    states = {name: [] for name, *_ in rows}
    for name, status, _ in rows:
        states[name].append(status)
    assert states["long.mp4"] == [OK] * 7
    assert states["cut.mp4"][-1] == FAILED
    assert set(states["cut.mp4"][:-1]) == {OK}
    assert states["v/0.mp4"] == [FAILED]
    blocks = list(open_embeddings("emb").blocks())
    stored = [(row["video"], row["start"], row["end"]) for block in blocks for row in block.facts.to_pylist()]
    assert len(stored) == summary.ok
    assert stored[:2] == [("long.mp4", 0.0, 1.0), ("long.mp4", 0.5, 1.5)]
    predictor = load(toy_run)
    views = predictor.read_views("long.mp4", Span(0.5, 1.5))
    np.testing.assert_allclose(blocks[0].features[1], predictor.embed([views])[0], atol=1e-5)
    assert predict_many(listing, request, targets, [].append).done == 0
    with pytest.raises(UserError, match="windows"):
        predict_many(listing, replace(request, windows=None), targets, [].append)


def test_weights_that_travel_with_a_model_are_found_by_each_process(toy_run, videos):
    folder = videos / "artifacts" / "run"
    shutil.copytree(toy_run, folder)
    weights = videos / "elsewhere.safetensors"
    shutil.copy(TOY_WEIGHTS, weights)
    method = ZeroShot(create("toy", weights=str(weights), num_frames=4))
    method.set_classes(LABELS)
    save_adapter(folder, method)
    shutil.move(weights, folder.parent / weights.name)
    files = open_model(str(folder)).files
    assert files.load("cpu").method.backbone.digest == method.backbone.digest
