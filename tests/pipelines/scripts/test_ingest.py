"""``ingest.py`` as users run it: every file of the pack gets a status and a reason; mistakes are one line."""

from __future__ import annotations

import csv
import os

import pyarrow.parquet as pq
import pytest

from pipelines import ingest
from pipelines.shards.clip_store import ClipStore
from pipelines.videos.inputs import find_inputs
from pipelines.videos.list_folder import ListFolder
from tests.helpers.scripts import run_copy, run_script
from tests.helpers.videofiles import truncate, write_audio, write_video
from vlmodels.errors import UserError

SET_ASIDE_AGAINST_EXPECTATION = {
    # "expected" says what a decoder alone does; cut in mid-file and shown by the header, these are not used
    "truncated_third.avi": "truncated: its header says 164 frames, the file has 49",
    "truncated_half.mkv": "truncated: its header says 10.4 s, the file has 5.0",
    "bitrot_middle.mp4": "damaged: 39 of 140 frames can be decoded",
    "decord_corrupted.mp4": "damaged: 28 of 50 frames can be decoded",
    "truncated_faststart_half.mp4": "truncated: its header says 140 frames",
}


@pytest.mark.ray
def test_the_pack_of_good_odd_and_broken_clips(ray_session, shared_data, tmp_path, capsys):
    code = ingest.main(
        ["--videos", str(shared_data / "clips"), "--out", str(tmp_path), "--frames", "4", "--size", "48"]
    )
    assert code == 0
    found = {row["uri"]: row for row in pq.read_table(tmp_path / "manifest.parquet").to_pylist()}
    with (shared_data / "MANIFEST.csv").open(newline="") as file:
        facts = {row["file"]: row for row in csv.DictReader(file)}
    assert found.keys() == facts.keys()
    for name, fact in facts.items():
        row, expected = found[name], fact["expected"]
        if name in SET_ASIDE_AGAINST_EXPECTATION:
            assert row["error"].startswith(SET_ASIDE_AGAINST_EXPECTATION[name]), name
        elif expected == "error" or expected.startswith("error ("):
            assert row["status"] == "quarantined", name
            assert row["error"], name
        else:
            assert (row["status"], row["error"]) == ("ok", ""), name
            assert row["n_frames"] == int(fact["pyav_frames"]), name
            turned = fact["rotation"] in {"90", "-90"}
            size = (int(fact["h"]), int(fact["w"])) if turned else (int(fact["w"]), int(fact["h"]))
            assert (row["width"], row["height"]) == size, name
        assert row["sha256"].startswith(fact["sha256_16"])
    store = ClipStore(tmp_path)
    store.verify()
    assert len(store) == 52
    said = capsys.readouterr().out
    assert "52 clips stored, 18 of 70 videos set aside" in said
    assert "4 x not a video\n" in said
    assert "zero_byte.mp4: the file is empty" in said


@pytest.mark.ray
def test_bad_videos_are_counted_against_the_limit(ray_session, tmp_path, capsys):
    videos = tmp_path / "videos" / "a class"
    write_video(videos / "good #1.mp4", 12)
    truncate(write_video(videos / "cut.mp4", 40, container={"movflags": "faststart"}), 0.5)
    write_audio(videos / "sound.mp4")
    (videos / "empty.mp4").write_bytes(b"")
    command = ["--videos", str(videos.parent), "--out", str(tmp_path / "out"), "--size", "48", "--workers", "1"]
    with pytest.raises(UserError, match=r"75 % of the videos were set aside, more than --max-bad 50 %"):
        ingest.main(command)
    capsys.readouterr()
    (videos / "notes.txt").write_text("mine")
    assert ingest.main([*command, "--max-bad", "80"]) == 0
    said = capsys.readouterr().out
    assert "(0 decoded now, 4 kept;" in said
    assert said.startswith("\n".join(find_inputs([videos.parent]).understanding.lines()) + "\n")
    assert "1 file passed over: .txt 1 (a class/notes.txt)\n" in said
    assert ClipStore(tmp_path / "out").classes == ("a class",)


@pytest.mark.ray
def test_a_data_set_own_data_and_the_lists_that_are_kept(ray_session, tmp_path, capsys):
    root, lists, out = tmp_path / "videos", tmp_path / "hmdb_splits", tmp_path / "out"
    for name in ("kick/a_kick.mp4", "kick_ball/b_kick_ball.mp4"):
        write_video(root / name, 12)
    lists.mkdir()
    (lists / "hmdb_51_labels.csv").write_bytes(b"id,name\r\n0,kick ball\r\n1,kick\r\n")
    (lists / "val1.txt").write_bytes(b"a_kick.avi 0\r\nb_kick_ball.avi 1\r\ngone.avi 1\r\n")
    (lists / "train1_few_shot_2.txt").write_text("never_read.avi 99\n")
    how = ["--out", str(out), "--frames", "2", "--size", "32", "--pool", "1", "--workers", "1"]
    published = ["--dataset", "hmdb51", "--lists", str(lists), "--root", str(root), "--protocol", "zero_shot"]
    assert ingest.main([*published, *how]) == 0
    assert "gone.avi: missing: no such file below" in capsys.readouterr().out
    rows = {row["uri"]: row for row in pq.read_table(out / "manifest.parquet").to_pylist()}
    assert (rows["a_kick.avi"]["label"], rows["a_kick.avi"]["path"]) == ("kick ball", "kick/a_kick.mp4")  # as published
    kept = ListFolder.open(out / "lists")
    assert (kept.dataset.name, kept.names()) == ("hmdb51", ["val1"])
    for name in ("val1.txt", "hmdb_51_labels.csv"):
        assert (out / "lists" / name).read_bytes() == (lists / name).read_bytes()

    mine = tmp_path / "mine.csv"
    mine.write_text("path,label,group,split\na_kick.avi,kick,film,train\nb_kick_ball.avi,kick ball,film 2,test\n")
    assert ingest.main(["--videos", str(mine), "--root", str(root), *how]) == 0
    assert "(0 decoded now, 2 kept;" in capsys.readouterr().out
    rows = [(r["label"], r["group"], r["split"]) for r in pq.read_table(out / "manifest.parquet").to_pylist()]
    assert rows == [("kick", "film", "train"), ("kick ball", "film 2", "test")]
    assert not (out / "lists").exists()


def test_help_answers_at_once_and_alone(tmp_path):
    before = os.times().children_user
    result = run_copy("ingest", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "--max-bad PERCENT" in result.stdout
    assert os.times().children_user - before < 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "empty"], "no videos here or in its folders"),
        (["--videos", "nowhere"], "nowhere: no such folder or list"),
        (["--videos", "videos", "--labels", "labels.csv"], "'Wolking' (did you mean 'Walking'?)"),
        (["--videos", "list.txt", "--labels", "labels.csv"], "list.txt:2:15: label 7 is out of range"),
        (["--videos", "videos", "--frames", "0"], "--frames 0: choose 1 to 256"),
        (["--videos", "vehicles"], "(--layout classes): 3 classes (bus, car, train)"),
        (["--videos", "from1.txt", "--labels", "two.csv", "--root", "vehicles"], "its labels seem to start at 1"),
        (["--lists", "videos", "--videos", "videos"], "say either --videos (a folder, lists or a CSV) or --lists"),
        (["--lists", "videos"], "none of the lists that are needed is here"),
        (["--videos", "videos", "--workers", "0"], "--workers 0: it must be more than 0"),
        (["--videos", "videos", "--out", "labels.csv"], "cannot write to labels.csv"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos" / "Wolking").mkdir(parents=True)
    (tmp_path / "videos" / "Wolking" / "a.mp4").write_bytes(b"")
    for name in ("bus", "car", "train"):
        (tmp_path / "vehicles" / name).mkdir(parents=True)
        (tmp_path / "vehicles" / name / "1.mp4").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("id,name\n0,Walking\n")
    (tmp_path / "two.csv").write_text("id,name\n0,bus\n1,car\n2,spare\n")
    (tmp_path / "from1.txt").write_text("bus/1.mp4 1\ncar/1.mp4 2\n")
    (tmp_path / "list.txt").write_text("Wolking/a.mp4 0\nWolking/a.mp4 7\n")
    result = run_script("ingest", *arguments, *([] if "--out" in arguments else ["--out", "out"]), cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out" / "index.json").exists()
