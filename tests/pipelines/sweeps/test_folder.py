"""Where a sweep's trials leave their runs, and beginning anew: nothing of the sweep is left, and all else is."""

from __future__ import annotations

import pytest

from pipelines import sweep
from pipelines.storage.place import Place
from pipelines.sweeps.folder import SweepFolder, runs_at
from vlmodels import methods
from vlmodels.errors import UserError


def test_trials_runs_are_with_the_sweep_or_in_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs_at("out", "sweep-a") == str(tmp_path / "out/sweeps/sweep-a/runs")
    assert runs_at("s3://bucket/out/", "sweep-a") == "s3://bucket/out/sweeps/sweep-a/runs"
    assert runs_at("s3://bucket/out?region=r", "sweep-a") == "s3://bucket/out/sweeps/sweep-a/runs?region=r"


def begun(out):
    """A sweep with a record and a finished run."""
    folder = SweepFolder.at(out, "sweep-a")
    folder.write_sweep({"name": "sweep-a"})
    folder.write_trial({"id": "1", "status": "finished"})
    place = Place.open(runs_at(out, "sweep-a"))
    place.filesystem.create_dir(f"{place.root}/run", recursive=True)
    (place / "run/run.json").write(b"{}")
    return folder, place


def test_begun_anew_here_nothing_is_left(tmp_path):
    folder, place = begun(str(tmp_path))
    folder.discard(runs_at(str(tmp_path), "sweep-a"))
    assert not list(folder.path.iterdir())
    assert not place.is_dir()
    folder.discard(runs_at(str(tmp_path), "sweep-a"))  # nor does that matter


def test_begun_anew_in_a_store_nothing_of_the_sweep_is_left(s3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, place = begun(s3)
    others = [Place.open(f"{s3}/sweeps/sweep-ab/runs/run.json"), Place.open(f"{s3}/run/run.json")]
    for other in others:
        other.write(b"{}")
    folder.discard(runs_at(s3, "sweep-a"))
    assert not list(folder.path.iterdir())
    assert not place.is_dir()
    assert [other.read() for other in others] == [b"{}", b"{}"]
    folder.discard(runs_at(s3, "sweep-a"))


def test_where_runs_cannot_be_deleted_nothing_is_forgotten(tmp_path, monkeypatch):
    folder, place = begun(str(tmp_path))

    def refuse(self):
        raise OSError("ACCESS_DENIED")

    monkeypatch.setattr(Place, "is_dir", refuse)
    with pytest.raises(UserError, match=r"--fresh cannot delete .*sweep-a/runs: these credentials may not.*leave out"):
        folder.discard(place.uri)
    assert folder.sweep() is not None


def test_the_list_of_spaces_needs_nothing_else_and_goes_to_stdout(capsys):
    assert sweep.main(["--space", "list"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    names = [line.split()[0] for line in told.out.splitlines()[1:]]
    assert names[:2] == ["variants", "dims"]
    assert names[-4:] == ["layers", "layers-apart", "search", "FILE.toml:NAME"]
    assert "MSTA table 6f; b2n" in told.out


@pytest.mark.parametrize("method", methods.names())
def test_every_methods_spaces_can_be_listed(method, capsys):
    assert sweep.main(["--method", method, "--space=list"]) == 0
    assert capsys.readouterr().out.startswith(f"spaces of {method}\n")


def test_spaces_of_no_method_are_a_mistake():
    with pytest.raises(UserError, match="unknown method 'mst'"):
        sweep.main(["--space", "list", "--method", "mst"])
