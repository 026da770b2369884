"""MLflow's stores: opened by many at once, moved, held, away."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.config.schema import TrackingConfig
from pipelines.runs.mlflow_store import answers, connect, moved_location, patiently, wait_for_answer
from pipelines.runs.tracking import experiment_of
from vlmodels.errors import UserError

OPEN = """
import sys
from pipelines.config.schema import TrackingConfig
from pipelines.runs.tracking import connect, experiment_of
print(experiment_of(connect(sys.argv[1]), TrackingConfig(uri=sys.argv[1])))
"""


def test_several_processes_make_one_store(tmp_path):
    """Without a lock: "duplicate column name"."""
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/mlflow.db"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert {out.splitlines()[-1] for out, _ in outputs} == {"1"}


def test_a_store_that_was_moved_finds_its_artefacts(tmp_path):
    config = TrackingConfig(uri=f"sqlite:///{tmp_path}/old place/mlflow.db")
    client = connect(config.uri)
    run = client.create_run(experiment_of(client, config)).info.run_id
    (tmp_path / "a.txt").write_text("a")
    client.log_artifact(run, str(tmp_path / "a.txt"))
    shutil.move(tmp_path / "old place", tmp_path / "new place")
    moved = TrackingConfig(uri=f"sqlite:///{tmp_path}/new place/mlflow.db")
    client = connect(moved.uri)
    assert [file.path for file in client.list_artifacts(run)] == ["a.txt"]
    later = client.create_run(experiment_of(client, moved)).info
    client.log_artifact(later.run_id, str(tmp_path / "a.txt"))
    assert not (tmp_path / "old place").exists()
    shutil.copytree(tmp_path / "new place", tmp_path / "copy")
    client = connect(f"sqlite:///{tmp_path}/copy/mlflow.db")
    assert str(tmp_path / "copy") in client.get_run(run).info.artifact_uri


def test_only_what_lay_beside_the_store_is_moved(tmp_path):
    here = tmp_path / "mlartifacts"
    (tmp_path / "kept" / "mlartifacts" / "1").mkdir(parents=True)
    assert moved_location(f"file://{here}/1", here) is None
    assert moved_location("s3://bucket/mlartifacts/1", here) is None
    assert moved_location("models:/m-1", here) is None
    assert moved_location(None, here) is None
    assert moved_location(f"file://{tmp_path}/kept/mlartifacts/1", here) is None  # it is there, and not here
    assert moved_location("file:///gone%20by/mlartifacts/1/artifacts", here) == f"file://{here}/1/artifacts"
    assert moved_location("/gone/mlartifacts", here) == str(here)


@pytest.fixture
def mute():
    """URI of a server that accepts connections and never answers."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_is_away_or_mute_is_waited_for_and_told(mute):
    assert not answers(mute, timeout_s=0.2)
    for uri in ("http://127.0.0.1:9", mute):
        said = []
        with pytest.raises(UserError, match=f"MLflow at {uri} does not answer; start it, or correct --mlflow"):
            wait_for_answer(uri, said.append, patience_s=0.1)
        assert said == [f"MLflow at {uri} does not answer; trying for 0 s"]


def test_passwords_are_not_shown():
    with pytest.raises(UserError) as error:
        wait_for_answer("http://me:secret@127.0.0.1:9", lambda _: None, patience_s=0)
    assert "secret" not in str(error.value)


def test_a_store_that_is_held_is_waited_for(tmp_path):
    uri, said = f"sqlite:///{tmp_path}/mlflow.db", []
    client = connect(uri)
    holder = sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    def let_go_once_told():
        while not said:
            time.sleep(0.1)
        holder.rollback()

    threading.Thread(target=let_go_once_told, daemon=True).start()
    made = patiently(lambda: client.create_experiment("late"), uri, said.append)
    assert client.get_experiment(made).name == "late"
    assert "is busy" in said[0]
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Exception, match="database is locked"):
        patiently(lambda: client.create_experiment("never"), uri, said.append, patience_s=1)
    holder.close()


def test_other_errors_are_not_waited_for():
    calls = []

    def fail():
        calls.append(1)
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        patiently(fail, "sqlite:///a.db", print)
    assert len(calls) == 1


def test_a_folder_that_cannot_be_written_is_no_hang(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db")
    assert Path(tmp_path / "file").is_file()
