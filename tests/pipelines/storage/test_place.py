"""Folders here and in stores: one class opens both, waits for a store that is away, and names what is wrong."""

from __future__ import annotations

import pickle
import threading
import time

import pytest
from pyarrow import fs

from pipelines.records.home import Home
from pipelines.storage.place import QUICK, Place, check_writable, is_uri, why, without_secrets, without_signature
from vlmodels.errors import UserError


@pytest.mark.parametrize(
    ("where", "answer"),
    [("runs", False), ("/a/b", False), ("file:///a", False), ("s3://b/a", True), ("memory://a", True)],
)
def test_what_is_a_uri(where, answer):
    assert is_uri(where) == answer


def check_files(place):
    assert (place / "a").size() is None
    assert not place.is_dir()
    with pytest.raises(FileNotFoundError):
        (place / "a").read()
    place.filesystem.create_dir(place.root)
    (place / "a").write(b"one")
    (place / "a").write(b"three")
    assert ((place / "a").read(), (place / "a").size()) == (b"three", 5)
    assert place.is_dir()
    assert not (place / "a").is_dir()
    infos = place.filesystem.get_file_info(fs.FileSelector(place.root))
    assert [info.base_name for info in infos] == ["a"]  # nothing unfinished is left


def test_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place.open("a b")
    assert (place.local, place.root, place.uri) == (True, str(tmp_path / "a b"), str(tmp_path / "a b"))
    assert Place.open(f"file://{tmp_path}/a b") == place
    check_files(place)


@pytest.mark.parametrize("name", ["loop", "X" * 300])
def test_runs_cannot_be_written_to_names_that_no_folder_can_have(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="pass another --out"):
        check_writable(str(tmp_path / name))


def test_a_local_write_is_whole_or_not_at_all(tmp_path):
    place = Place.open(tmp_path / "a")
    place.write(b"before")
    with pytest.raises(TypeError):
        place.write("no bytes")
    assert place.read() == b"before"


def test_a_store_that_the_environment_names(s3):
    place = Place.open(s3)
    assert (place.local, place.uri, place.root) == (False, s3, s3.removeprefix("s3://"))
    check_files(place)


def test_a_store_that_the_query_names(s3, monkeypatch):
    (Place.open(s3) / "a").write(b"one")
    endpoint = Place.open(s3).filesystem.__reduce__()[1][0]["endpoint_override"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    place = Place.open(f"{s3}?endpoint_override={endpoint.removeprefix('http://')}&scheme=http&region=us-east-1")
    assert place.uri == s3
    assert (place / "a").read() == b"one"


def test_other_stores_come_from_fsspec():
    check_files(Place.open("memory://vidadapt/storage"))
    with pytest.raises(UserError, match=r"nonsense://a cannot be opened: .*nonsense"):
        Place.open("nonsense://a")


def test_a_filesystem_goes_to_other_processes(s3):
    place = Place.open(s3)
    (place / "a").write(b"one")
    assert (pickle.loads(pickle.dumps(place)) / "a").read() == b"one"


def test_another_process_is_as_patient(s3):
    place = Place.open(s3, attempts=7)
    assert pickle.loads(pickle.dumps(place.filesystem)).__reduce__() == place.filesystem.__reduce__()
    assert place.filesystem.__reduce__()[1][1] == 7


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/runs", "s3://bucket/runs?access_key=key&secret_key=secret"])
def test_keys_in_an_address_are_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY") as refused:
        Place.open(uri)
    assert "secret@" not in str(refused.value)
    assert "key=" not in str(refused.value)
    assert without_secrets(uri) == "s3://bucket/runs"


@pytest.mark.parametrize("uri", ["/a b/c?d=e.mp4", "file:///a?b", "https://h/a%20b.mp4", "s3://b/k?region=x"])
def test_what_lets_nobody_in_is_written_as_it_is(uri):
    assert without_signature(uri) == uri


def test_what_lets_somebody_in_is_not_written():
    signed = ["https://me:SECRET@h:1/a.mp4?sig=SECRET&x=1", "https://h:1/a.mp4?sig=SECRET&x=2#SECRET"]
    first, second = map(without_signature, signed)
    assert first != second
    assert all(one.startswith("https://h:1/a.mp4?redacted=") and "SECRET" not in one for one in (first, second))
    error = OSError(f"403, message='Forbidden', url='{signed[0]}'")
    assert why(error) == "403, message='Forbidden', url='https://h:1/a.mp4'"


def test_what_is_kept_of_a_run_comes_back(s3, tmp_path):
    home = Home.at(f"{s3}/runs")
    with home.kept("run") as nothing:
        assert nothing is None
    for epoch in ("1", "2"):
        (tmp_path / "state.json").write_text(epoch)
        home.keep(tmp_path, "run")
    with home.kept("run") as folder:
        assert (folder / "state.json").read_text() == "2"


def test_a_wrong_bucket_is_named(s3):
    place = Place.open("s3://no-such-bucket-here/runs", attempts=QUICK)
    with pytest.raises(OSError, match="no-such-bucket-here") as failed:
        (place / "a").write(b"one")
    assert "no such bucket" in why(failed.value)
    with pytest.raises(UserError, match=r"cannot be written to s3://no-such-bucket-here/runs: there is no such bucket"):
        check_writable("s3://no-such-bucket-here/runs")


def test_a_store_that_is_not_there_is_named_soon(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"runs cannot be written to {s3}: the store cannot be reached"):
        check_writable(s3)
    assert time.monotonic() - began < 15


def test_a_store_that_is_away_is_waited_for(s3, s3_server):
    place = Place.open(s3)
    (place / "a").write(b"one")
    began = time.monotonic()
    with s3_server.away():
        waiting = threading.Thread(target=(place / "a").write, args=(b"two",))
        waiting.start()
        waiting.join(3)
        assert waiting.is_alive()
    waiting.join(60)
    assert not waiting.is_alive()
    assert time.monotonic() - began >= 3
    assert (place / "a").read() == b"two"
