"""One process owns a run, for as long as it lives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from pyarrow import fs

from pipelines.records.home import Home
from pipelines.runs.owner import owned
from vlmodels.errors import UserError

OWN = """
import sys
from pipelines.records.home import Home
from pipelines.runs.owner import owned
with owned(Home.at(sys.argv[1]), "a", print):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path):
    return Home.at(str(tmp_path))


@pytest.fixture
def other(home):
    """Another process that owns the run "a"."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", OWN, home.root], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_trains_the_run(home, other):
    words = (
        rf"a is being trained by process {other.pid} on {socket.gethostname()}, since .*; wait for it, or end it first"
    )
    with pytest.raises(UserError, match=words), owned(home, "a", print):
        pass
    with owned(home, "b", print):
        pass


def test_a_killed_process_owns_nothing(home, other, tmp_path):
    other.kill()
    other.wait()
    with owned(home, "a", print):
        pass
    assert not list((tmp_path / ".ray").glob("*"))


def test_its_note_may_be_damaged(home, other, tmp_path):
    (tmp_path / ".ray" / "a.owner").write_bytes(b"\0\0")
    with pytest.raises(UserError, match="is being trained by another process"), owned(home, "a", print):
        pass


@pytest.mark.parametrize(
    ("host", "pid", "words"), [("elsewhere", 1, "taking over from process 1 on elsewhere"), ("", 1, "")]
)
def test_a_store_has_notes_instead_of_locks(tmp_path, host, pid, words):
    home = Home(fs.LocalFileSystem(), str(tmp_path), local=False, uri="s3://bucket/runs")
    note = {"host": host or socket.gethostname(), "pid": 1, "since": "2026-01-01"}
    home.remember("a.owner", json.dumps(note))
    said = []
    if host:
        with owned(home, "a", said.append):
            assert json.loads(home.recall("a.owner"))["pid"] == os.getpid()
        assert said[0].startswith("taking over from process 1 on elsewhere")
        assert home.recall("a.owner") is None
    else:
        with pytest.raises(UserError, match="is being trained by process 1"), owned(home, "a", said.append):
            pass
