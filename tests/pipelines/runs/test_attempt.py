"""A run ends in its place whatever MLflow or the disk do, and the same command makes good what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.planning.plan import plan_run
from pipelines.records.home import Home
from pipelines.runs.progress import EpochDone, ScoringStarted
from pipelines.runs.run import run_training
from pipelines.runs.tracking import connect
from tests.helpers import small_runs
from vlmodels.errors import UserError


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """MLflow leaves its stores in the environment when a model is registered."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data, tmp_path):
    return small_runs.config_of(
        data,
        tmp_path / "runs",
        "optim.epochs=2",
        f"tracking.uri=sqlite:///{tmp_path}/runs/mlflow.db",
        "tracking.register=model",
        workers=1,
    )


def run(config, on=None, do=None):
    """Train; do something when a message of a kind comes. Return the result and what was said."""
    said = []

    def on_message(message):
        if on is not None and isinstance(message, on):
            do()

    return run_training(plan_run(config), say=said.append, on_message=on_message), "\n".join(said)


def tracked(config):
    client = connect(config.tracking.uri)
    return client.search_runs([client.get_experiment_by_name("vidadapt").experiment_id])


def files_of(config, run):
    return {file.path for file in connect(config.tracking.uri).list_artifacts(run.info.run_id)}


def test_what_mlflow_missed_is_delivered_by_the_same_command(config, tmp_path):
    artifacts = tmp_path / "runs" / "mlartifacts"

    def block():
        artifacts.parent.mkdir(exist_ok=True)
        artifacts.touch()  # no folder can be made there

    with pytest.raises(UserError, match=r"is whole in .*, but MLflow at .* did not register it .*the same command"):
        run(config, ScoringStarted, block)
    assert tracked(config)[0].info.status != "FINISHED"
    artifacts.unlink()
    result, said = run(config)
    assert result.reused
    assert "registered as models:/model@champion" in said
    (one,) = tracked(config)
    assert one.info.status == "FINISHED"
    assert one.data.metrics["base/top1"] == result.metrics.tests["base"].top1
    assert {"adapter.safetensors", "run.json", "report", "model_card.md"} <= files_of(config, one)
    history = connect(config.tracking.uri).get_metric_history(one.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2]
    assert "MLflow" not in run(config)[1]


def test_a_folder_of_runs_that_was_moved_works_where_it_is(config, data, tmp_path):
    first, _ = run(config)
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    (tmp_path / "runs").write_text("no folder can be made here")
    moved = small_runs.config_of(
        data,
        tmp_path / "moved",
        "optim.epochs=2",
        f"tracking.uri=sqlite:///{tmp_path}/moved/mlflow.db",
        "tracking.register=other",
        workers=1,
    )
    again, said = run(moved)
    assert again.reused
    assert again.record == first.record
    assert "registered as models:/other@champion" in said


@pytest.mark.parametrize("file", ["adapter.safetensors", "predictions.npz", "classes.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(bytes(path.stat().st_size))])
def test_a_finished_run_with_a_damaged_file_is_not_reused(finished, file, damage):
    config, folder = finished
    whole = (folder / file).read_bytes()
    damage(folder / file)
    with pytest.raises(UserError, match=rf"{folder}/{file} is (missing|damaged).*; .*--fresh"):
        run(config)
    (folder / file).write_bytes(whole)
    assert run(config)[0].reused


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    config = small_runs.config_of(
        data, tmp_path_factory.mktemp("runs"), "optim.epochs=1", "optim.warmup_epochs=0", workers=1
    )
    result, _ = run(config)
    return config, Path(result.run_dir)


def test_damaged_shards_are_found_before_training(config, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shard = min((tmp_path / "data" / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    bad = small_runs.config_of(tmp_path / "data", tmp_path / "runs", workers=1)
    epochs = []
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        run(bad, EpochDone, lambda: epochs.append(1))
    assert not epochs


def test_a_checkpoint_cut_short_costs_an_epoch(data, tmp_path):
    config = small_runs.config_of(data, tmp_path, "optim.epochs=3", workers=1)

    def stop():
        stops.append(1)
        if len(stops) == 2:
            raise KeyboardInterrupt

    stops = []
    with pytest.raises(KeyboardInterrupt):
        run(config, EpochDone, stop)
    kept = tmp_path / ".ray" / plan_run(config).name
    (kept / "checkpoint-2" / "optimizer.pt").write_bytes(b"cut")
    result, said = run(config)
    assert "checkpoint-2/optimizer.pt is damaged; going back to the checkpoint before" in said
    assert "continuing after epoch 1" in said
    assert small_runs.losses(result) == small_runs.losses(
        run(small_runs.config_of(data, tmp_path / "b", "optim.epochs=3", workers=1))[0]
    )


def test_a_full_disk_is_told_in_one_line_and_costs_no_epoch(data, tmp_path):
    """The folder of the runs becomes a file after the first epoch: nothing can be written there any more."""
    config = small_runs.config_of(data, tmp_path / "runs", "optim.epochs=2", workers=1)
    name = plan_run(config).name
    scratch = tmp_path / "runs" / ".ray" / name

    def fill():
        scratch.rename(tmp_path / "kept")
        scratch.touch()

    with pytest.raises(UserError, match=r"the folder of the runs cannot be written: .*; what was trained is kept"):
        run(config, EpochDone, fill)
    scratch.unlink()
    (tmp_path / "kept").rename(scratch)
    assert "continuing after epoch 1" in run(config)[1]
    assert Home.at(config.out).finished(name)
