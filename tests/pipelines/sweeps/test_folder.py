"""The folder of a sweep: who may write it, which trials ended for good, where runs are, and what --fresh deletes."""

from __future__ import annotations

import json

import pytest

from pipelines.storage.place import Place
from pipelines.sweeps.folder import SweepFolder, runs_at
from pipelines.sweeps.session import begin_anew
from tests.helpers.sweep_records import layers_trial, sweep_of
from vlmodels.errors import UserError


def test_trials_runs_are_with_the_sweep_or_in_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs_at("out", "sweep-a") == str(tmp_path / "out/sweeps/sweep-a/runs")
    assert runs_at("s3://bucket/out/", "sweep-a") == "s3://bucket/out/sweeps/sweep-a/runs"
    assert runs_at("s3://bucket/out?region=r", "sweep-a") == "s3://bucket/out/sweeps/sweep-a/runs?region=r"


def test_a_sweep_has_one_process_at_a_time(tmp_path):
    folder = SweepFolder(tmp_path / "sweep-a")
    with folder.locked():
        with SweepFolder(tmp_path / "sweep-b").locked():
            pass
        with pytest.raises(UserError, match="sweep-a is running already"), folder.locked():
            pass
    with folder.locked():
        pass


def test_what_fails_in_two_sessions_is_not_waited_for(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    once = layers_trial("1-1", status="failed", failures=1)
    twice = layers_trial("2-2", status="failed", failures=2)
    folder.write_trial(once)
    folder.write_trial(twice)
    assert folder.unfinished() == [once]
    assert folder.ended() == [twice]


def test_a_file_that_is_no_record_is_named(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.write_trial(layers_trial("1-1"))
    (file,) = (tmp_path / "trials").iterdir()
    file.write_text(json.dumps({"id": "1-1"}))
    with pytest.raises(UserError, match=rf"{file.name} is not a record of a sweep: .*setting"):
        folder.trials()
    file.write_text("{")
    with pytest.raises(UserError, match=f"{file.name} is not a record"):
        folder.trials()


def begun(out):
    """A sweep with a record and a finished run."""
    folder = SweepFolder.at(out, "sweep-a")
    folder.write_sweep(sweep_of(name="sweep-a"))
    folder.write_trial(layers_trial("1-1"))
    place = Place.open(runs_at(out, "sweep-a"))
    place.filesystem.create_dir(f"{place.root}/run", recursive=True)
    (place / "run/run.json").write(b"{}")
    return folder, place


def test_begun_anew_here_nothing_is_left(tmp_path):
    folder, place = begun(str(tmp_path))
    folder.discard(place)
    assert not list(folder.path.iterdir())
    assert not place.is_dir()
    folder.discard(place)  # twice is no error


@pytest.mark.parametrize("left", ["{", "{}", ""])
def test_a_record_that_cannot_be_read_does_not_keep_a_sweep_from_beginning_anew(planned, tmp_path, left):
    plan = planned("--space", "insertion", "--out", str(tmp_path))
    folder = SweepFolder.at(str(tmp_path), plan.name)
    folder.write_trial(layers_trial("1-1"))
    (folder.path / "sweep.json").write_text(left)
    with pytest.raises(UserError, match=r"sweep\.json is not a record"):
        folder.sweep()
    begin_anew(plan, folder)
    assert not list(folder.path.iterdir())


def test_begun_anew_in_a_store_nothing_of_the_sweep_is_left(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, place = begun(s3)
    others = [Place.open(f"{s3}/sweeps/sweep-ab/runs/run.json"), Place.open(f"{s3}/run/run.json")]
    for other in others:
        other.write(b"{}")
    folder.discard(place)
    assert not list(folder.path.iterdir())
    assert not place.is_dir()
    assert [other.read() for other in others] == [b"{}", b"{}"]
    folder.discard(place)


def test_where_runs_cannot_be_deleted_nothing_is(tmp_path):
    class Denied(Place):
        """A store whose credentials may not read."""

        def is_dir(self):
            raise OSError("ACCESS_DENIED")

    folder, place = begun(str(tmp_path))
    denied = Denied(place.filesystem, place.root, place.uri, place.local)
    with pytest.raises(UserError, match=r"--fresh cannot delete .*sweep-a/runs: these credentials may not.*leave out"):
        folder.discard(denied)
    assert folder.sweep() is not None
