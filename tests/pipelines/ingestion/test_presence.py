"""The check of a data set before training: what is there, what is broken, and what is refused."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import fsspec
import pytest
from PIL import Image
from pyarrow import fs

from pipelines import check_data
from pipelines.ingestion import presence, presence_report
from pipelines.ingestion.batch import CHANGED, GONE
from pipelines.ingestion.presence_report import summary
from pipelines.planning.training_flags import config_from, training_parser
from pipelines.storage.place import Place
from pipelines.videos.flags import local_only
from pipelines.videos.inputs import find_inputs, find_listed
from pipelines.videos.list_folder import ListFolder
from pipelines.videos.uris import uri_of
from tests.helpers.ingesting import PAINT
from tests.helpers.videofiles import truncate, write_video
from vlmodels.errors import UserError


@pytest.mark.ray
def test_decoding_finds_what_the_first_bytes_do_not_show(ray_session, tmp_path, capsys):
    videos = tmp_path / "v"
    write_video(videos / "a" / "good.mp4", 12)
    truncate(write_video(videos / "a" / "cut.mp4", 40), 0.5)
    assert check_data.main(["--videos", str(videos)]) == 0
    assert check_data.main(["--videos", str(videos), "--decode", "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "corrupt: 1\n  1 x not a readable video\n      a/cut.mp4: not a readable video" in said


def upload(folder, uri):
    place = Place.open(uri)
    fs.copy_files(str(folder), place.root, destination_filesystem=place.filesystem)


def test_videos_in_a_store_are_checked_as_on_a_disk(world, run, s3, capsys):
    upload(world / "videos", f"{s3}/my videos")
    assert run("--out", str(world / "local")) == 1
    at_home = capsys.readouterr().out
    arguments = ["--dataset", "hmdb51", "--lists", str(world / "lists"), "--out", str(world / "stored")]
    assert check_data.main([*arguments, "--root", f"{s3}/my videos?region=us-east-1"]) == 1
    words = (at_home.replace(str(world / "videos"), f"{s3}/my videos"), capsys.readouterr().out)
    assert words[0].split("\nreport")[0] == words[1].split("\nreport")[0]
    local, stored = (json.loads((world / out / "check.json").read_text()) for out in ("local", "stored"))
    assert stored["root"] == f"{s3}/my videos"
    assert stored["splits"] == local["splits"]
    assert stored["extra"] == local["extra"]
    assert not (world / "cache").exists()


def test_a_playlist_is_no_video(tmp_path):
    (tmp_path / "v" / "run").mkdir(parents=True)
    (tmp_path / "v" / "run" / "list.mp4").write_text("#EXTM3U\n#EXTINF:10,\nother.ts\n")
    inputs = find_inputs([str(tmp_path / "v")], scan=True)
    assert presence.first_bytes(inputs) == {"run/list.mp4": "an HLS playlist, not a video"}


def test_videos_of_a_store_are_decoded_and_not_kept(here, tmp_path, s3, capsys):
    write_video(tmp_path / "v" / "run" / "good.mp4", 12)
    truncate(write_video(tmp_path / "v" / "run" / "cut 100%.mp4", 40), 0.5)
    (tmp_path / "v" / "run" / "zeros.mp4").write_bytes(bytes(9000))
    upload(tmp_path / "v", f"{s3}/v")
    assert check_data.main(["--videos", f"{s3}/v"]) == 1
    inputs, said = find_inputs([f"{s3}/v"], scan=True), []
    broken = presence.first_bytes(inputs)
    broken |= presence.undecodable(inputs, known=broken, say=said.append, run_checks=here.run_checks)
    assert here.checked == ["run/cut 100%.mp4", "run/good.mp4"]
    assert said[0] == "decoding 2 videos, 0.0 MB to fetch"
    assert said[-1] == "2/2 videos, 1 corrupt"
    found = presence.check(inputs, broken=broken)
    assert not found.complete
    lines = summary(found, [])
    assert "1 x not a readable video\n      run/cut 100%.mp4: not a readable video (Invalid data" in lines
    assert not list((tmp_path / "cache" / "ingest" / "work").iterdir())
    mine = tmp_path / "mine.csv"
    mine.write_text(f"path,label\n{s3}/v/run/good.mp4,run\nv/good.mp4,run\n")
    capsys.readouterr()
    assert check_data.main(["--videos", str(mine), "--root", f"{s3}/v"]) == 0
    assert "(none)       2        1        1        0        0\n" in capsys.readouterr().out


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Two files in a store of this process; copies lie below ``tmp_path``."""
    monkeypatch.setenv("VIDADAPT_CACHE", str(tmp_path / "cache"))
    where = f"memory://{tmp_path.name}"
    for name in ("a.mp4", "b.mp4"):
        (Place.open(where) / name).write(name.encode())
    return where


@pytest.fixture
def undecodable(here):
    """Check in this process, with a decoder that takes anything but ``bad``."""
    return lambda inputs: presence.undecodable(inputs, decode=PAINT, run_checks=here.run_checks)


def test_a_store_that_changes_meanwhile(memory, undecodable):
    inputs = find_inputs([memory])
    place = Place.open(memory)
    assert presence.first_bytes(inputs) == undecodable(inputs) == {}
    place.filesystem.delete_file(f"{place.root}/a.mp4")
    (place / "b.mp4").write(b"longer or shorter than it was")
    assert presence.first_bytes(inputs) == {"a.mp4": GONE}
    broken = undecodable(inputs)
    assert broken == {"a.mp4": GONE, "b.mp4": CHANGED}
    assert [one.status for one in presence.check(inputs, broken=broken).videos] == ["missing", "corrupt"]


def test_a_store_that_cannot_be_read_is_no_broken_video(memory, undecodable, monkeypatch):
    def denied(*_, **__):
        raise OSError("ACCESS_DENIED")

    inputs = find_inputs([memory])
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "_open", denied)
    for look in (presence.first_bytes, undecodable):
        with pytest.raises(UserError, match=rf"^{memory}/a.mp4 cannot be read: these credentials may not do this; see"):
            look(inputs)


def test_no_room_for_copies(memory, undecodable, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}/cache on .*; make room, or set VIDADAPT_CACHE"):
        undecodable(find_inputs([memory]))


def test_mistakes_about_stores(memory, s3, world):
    published = ["--dataset", "hmdb51", "--lists", str(world / "lists")]
    for arguments, message in (
        (["--videos", "s3://no-such-bucket/v"], "s3://no-such-bucket/v cannot be read: there is no such bucket"),
        (["--videos", f"{s3}/nowhere"], "nowhere: no such folder in the store, or nothing in it"),
        ([*published, "--root", f"{s3}/nowhere"], "no such folder in the store, or nothing in it"),
        (["--videos", f"{memory}/mine.csv"], "copy the list to this machine; --root URI says where its videos are"),
        (["--videos", memory, "--out", f"{memory}/o"], f"--out {memory}/o: it has to be a local path; name a folder"),
        (["--lists", f"{s3}/l?region=x"], f"--lists {s3}/l: it has to be a local path; copy it to this machine first"),
        (["--videos", memory, "--labels", "l.csv", f"{s3}/l.csv"], f"--labels {s3}/l.csv: it has to be a local path"),
    ):
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            check_data.main(arguments)


def test_only_uris_are_refused():
    args = argparse.Namespace(captions=None, pretrained="openai", lists="a/b", labels=["file:///l.csv"])
    local_only(args, "captions", "pretrained", "lists", "labels", "absent")
    args.pretrained = "hf-hub:org/name"
    local_only(args, "pretrained")
    args.pretrained = "s3://b/w.pt"
    with pytest.raises(UserError, match=r"--pretrained s3://b/w\.pt: it has to be a local path; copy it"):
        local_only(args, "captions", "pretrained")


@pytest.mark.parametrize("flag", ["lists", "pretrained"])
def test_training_reads_these_here_alone(flag):
    args = training_parser("", "b2n").parse_args(["--data", "x", f"--{flag}", "s3://b/x"])
    with pytest.raises(UserError, match=f"--{flag} s3://b/x: it has to be a local path"):
        config_from(args, protocol="b2n")


@pytest.mark.parametrize(
    ("listed", "uri"),
    [("a/./b.mp4", "a/b.mp4"), ("a//b.mp4", "a/b.mp4"), ("s3://b//a/c.mp4", "s3://b/a/c.mp4"), ("s3://b", "s3://b")],
)
def test_listed_paths_are_plain_and_keep_their_scheme(listed, uri):
    assert uri_of(listed) == uri


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say either --videos"),
        (["--lists", "lists", "--videos", "v"], "say either --videos"),
        (["--lists", "lists", "--labels", "l.csv"], "--labels goes with --videos"),
        (["--videos", "lists/val1.txt", "--dataset", "hmdb51"], "--lists DIR"),
        (["--lists", "nowhere"], "no such folder of lists"),
        (["--videos", "videos", "--decode", "--workers", "-1"], "--workers -1: it must be more than 0"),
        (["--videos", "videos", "--decode", "--timeout", "0"], "--timeout 0: it must be more than 0"),
        (["--videos", "videos", "--decode", "--timeout", "nan"], "--timeout nan: it must be more than 0"),
        (["--lists", "lists", "--dataset", "hmdb"], "did you mean 'hmdb51'"),
        (["--lists", "lists", "--dataset", "hmdb51", "--protocol", "b2n"], "none of the lists that are needed"),
        (["--lists", "lists", "--dataset", "hmdb51", "--root", "lists"], "none of the 8 listed videos is below"),
    ],
)
def test_mistakes(world, monkeypatch, arguments, message):
    monkeypatch.chdir(world)
    with pytest.raises(UserError, match=message):
        check_data.main(arguments)


def test_help_answers_at_once(tmp_path):
    started = time.monotonic()
    done = subprocess.run([sys.executable, check_data.__file__, "--help"], capture_output=True, text=True, check=True)
    assert "Exit code: 0 if every listed video is there and whole, 1 if" in " ".join(done.stdout.split())
    assert time.monotonic() - started < 2


def test_many_files_are_no_burden(tmp_path, capsys):
    names = [f"{i:06d}.mp4" for i in range(20_000)]
    (tmp_path / "v" / "c").mkdir(parents=True)
    for name in names:
        (tmp_path / "v" / "c" / name).touch()
    (tmp_path / "l.txt").write_text("".join(f"{name} 0\n" for name in names))
    (tmp_path / "l.csv").write_text("id,name\n0,c\n")
    started = time.process_time()
    check_data.main(
        ["--videos", str(tmp_path / "l.txt"), "--labels", str(tmp_path / "l.csv"), "--root", str(tmp_path / "v")]
    )
    assert time.process_time() - started < 10  # about 2 s; minutes if files were looked up one by one
    said = capsys.readouterr().out
    assert "10000/20000 files looked at\n" in said
    assert "20000 x the file is empty" in said


def test_parts_of_videos_are_checked_and_listed_again(tmp_path, here, capsys):
    write_video(tmp_path / "v" / "a.mp4", frames=50)
    write_video(tmp_path / "v" / "b.mp4", frames=50)
    mine = tmp_path / "l.csv"
    rows = "a.mp4,x,0,1\na.mp4,x,1,9\na.mp4,y,1.5,2\nb.mp4,y,2,1\nb.mp4,y,0,1\n"
    mine.write_text(f"path,label,start_s,end_s\n{rows}")
    inputs = find_inputs([mine], root=tmp_path / "v", scan=True)
    broken = presence.undecodable(inputs, say=lambda _: None, run_checks=here.run_checks)
    assert list(broken) == ["a.mp4 [1.0-9.0 s]"]
    found = {checked.video.uri: checked.status for checked in presence.check(inputs, broken=broken).videos}
    assert found == {
        "a.mp4 [0.0-1.0 s]": "present",
        "a.mp4 [1.0-9.0 s]": "corrupt",
        "a.mp4 [1.5-2.0 s]": "present",
        "b.mp4 [2-1]": "corrupt",
        "b.mp4 [0.0-1.0 s]": "present",
    }
    checked = presence.check(inputs, broken=broken)
    presence_report.write(tmp_path / "check", inputs, checked, presence_report.CheckRun(True, 0.0, ()))
    lists = ListFolder.open(tmp_path / "check" / "lists")
    again = find_listed(lists, ["all"], tmp_path / "v")
    assert [video.uri for video in again.videos] == [
        uri for uri, status in sorted(found.items()) if status == "present"
    ]


def test_frame_folders_are_checked(tmp_path, here):
    for name in ("v1", "v2"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for number in (1, 2, 3):
            Image.new("RGB", (16, 16)).save(tmp_path / "x" / name / f"{number}.png")
    (tmp_path / "x" / "v2" / "2.png").unlink()
    inputs = find_inputs([tmp_path], scan=True)
    assert presence.first_bytes(inputs) == {"x/v2": "a gap in its pictures: none is between 1.png and 3.png"}
    (tmp_path / "x" / "v1" / "2.png").write_bytes(b"no picture")
    broken = presence.undecodable(inputs, known=["x/v2"], say=lambda _: None, run_checks=here.run_checks)
    assert broken == {"x/v1": "its picture 2.png is damaged"}
