"""Runs in the registry: what it says about them, whom an alias points to, and what the models answer there."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from pipelines.config.schema import TrackingConfig
from pipelines.planning.plan import plan_run
from pipelines.runs.registry import register_model
from pipelines.runs.run import run_training
from pipelines.runs.tracking import connect
from tests.helpers import small_runs
from tests.helpers.tiny_families import know_tiny_pe
from tests.helpers.tiny_tokenizers import add_model, save_tokenizer, save_weights
from vlmodels.errors import UserError
from vlmodels.toy import TOY_WEIGHTS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs in one store: the second has its backbone's weights in a file; none is registered yet."""
    root = tmp_path_factory.mktemp("registry")
    data = small_runs.make_data(root)
    weights = root / "elsewhere" / "my toy.safetensors"
    weights.parent.mkdir()
    shutil.copy(TOY_WEIGHTS, weights)
    uri = f"sqlite:///{root}/runs/mlflow.db"
    common = ("optim.epochs=2", f"tracking.uri={uri}", "tracking.system_metrics_s=0.05", "protocol.holdout=0.3")
    configs = [
        small_runs.config_of(data, root / "runs", *common, workers=1),
        small_runs.config_of(data, root / "runs", *common, "seed=2", f"backbone.pretrained={weights}", workers=1),
    ]
    return uri, [run_training(plan_run(config), say=lambda _: None) for config in configs]


@pytest.fixture
def store(runs, tmp_path):
    """A copy of the store, which a test may change: its address, and what ``register_model`` takes of each run."""
    root = Path(runs[0].removeprefix("sqlite:///")).parent
    shutil.copytree(root, tmp_path / "runs", ignore=shutil.ignore_patterns(".ray"))
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    return uri, [(tmp_path / "runs" / run.record.name, run.record.tracking.run_id) for run in runs[1]]


def register(store, number=0, **settings):
    said = []
    folder, run_id = store[1][number]
    uri = register_model(folder, TrackingConfig(uri=store[0], register="m", **settings), run_id, said.append)
    return uri, "\n".join(said)


def version_of_alias(store):
    return connect(store[0]).get_model_version_by_alias("m", "champion")


def model_of(store, name="m"):
    """The logged model that an alias points to."""
    client = connect(store[0])
    source = client.get_model_version_by_alias(name, "champion").source
    return client.get_logged_model(source.removeprefix("models:/"))


def test_an_alias_moves_only_when_asked(store):
    assert register(store) == ("models:/m@champion", "")
    assert register(store)[0] == "models:/m@champion"
    uri, said = register(store, 1)
    assert uri == "models:/m/2"
    assert "models:/m@champion stays version 1" in said
    assert "--move-alias" in said
    assert register(store, 1)[0] == "models:/m/2"  # and no third version
    assert str(version_of_alias(store).version) == "1"
    assert register(store, 1, move_alias=True)[0] == "models:/m@champion"
    assert str(version_of_alias(store).version) == "2"
    client = connect(store[0])
    for version, loads in (("1", "models:/m/1"), ("2", "models:/m@champion")):
        assert f'vlmodels.load("{loads}")' in client.get_model_version("m", version).description
    assert register(store, 1, alias="candidate")[0] == "models:/m@candidate"
    assert len(connect(store[0]).search_model_versions("name = 'm'")) == 2


def test_a_store_that_fails_does_not_pass_for_one_without_the_alias(store, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    register(store)

    def fails(*_):
        raise MlflowException("the database is gone")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", fails)
    with pytest.raises(MlflowException, match="gone"):
        register(store, 1)
    monkeypatch.undo()
    assert str(version_of_alias(store).version) == "1"


def test_half_a_version_does_not_pass_for_a_registered_run(store, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def fails(*_, **__):
        raise MlflowException("the disk is full")

    monkeypatch.setattr(MlflowClient, "update_model_version", fails)
    with pytest.raises(MlflowException, match="full"):
        register(store)
    monkeypatch.undo()
    assert register(store)[0] == "models:/m@champion"
    assert len(connect(store[0]).search_model_versions("name = 'm'")) == 1


def test_the_registry_says_what_a_model_is(runs, store):
    from mlflow.models import Model

    register(store)
    register(store, 1)
    client, record = connect(store[0]), runs[1][0].record
    version = version_of_alias(store)
    model = model_of(store)
    hm = f"{record.metrics.hm:.2f}"
    for tags in (version.tags, model.tags):
        assert (tags["method"], tags["backbone"], tags["frames"], tags["hm"]) == ("msta", "toy", "4", hm)
        assert (tags["vidadapt.run"], tags["data_digest"]) == (record.name, record.facts.data_digest)
        assert len(tags["backbone_digest"]) == 64
    assert (model.status, model.source_run_id) == ("READY", record.tracking.run_id)
    assert 'vlmodels.load("models:/m@champion")' in version.description
    assert 'vlmodels.load("models:/m/2")' in client.get_model_version("m", "2").description
    metadata = Model.load(model.artifact_location.removeprefix("file://")).metadata
    assert metadata["scores"]["hm"] == record.metrics.hm


def test_scores_are_tied_to_the_model_and_its_data_once(runs, store):
    register(store)
    client, record = connect(store[0]), runs[1][0].record
    model = model_of(store)
    run = client.get_run(record.tracking.run_id)
    digests = {one.dataset.name: one.dataset.digest for one in run.inputs.dataset_inputs}
    tied = {one.key: one for one in model.metrics}
    assert tied["base/top1"].value == record.metrics.tests["base"].top1
    assert tied["base/top1"].dataset_name.endswith("/base")
    assert tied["base/top1"].dataset_digest == digests[tied["base/top1"].dataset_name]
    assert tied["hm"].value == record.metrics.hm
    assert len(client.get_metric_history(record.tracking.run_id, "base/top1")) == 1


def test_a_tracked_run_says_who_what_and_on_which_data(runs):
    client, record = connect(runs[0]), runs[1][0].record
    run = client.get_run(record.tracking.run_id)
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert run.data.tags["mlflow.source.name"]
    assert run.data.tags["mlflow.user"]
    contexts = {
        one.dataset.name.rpartition("/")[2]: next(tag.value for tag in one.tags if tag.key == "mlflow.data.context")
        for one in run.inputs.dataset_inputs
    }
    assert contexts == {"train": "train", "select": "select", "base": "test", "novel": "test"}
    assert len({one.dataset.digest for one in run.inputs.dataset_inputs}) == 4
    assert run.data.metrics["system/cpu_utilization_percentage"] >= 0


def test_the_model_answers_its_example_and_what_it_is_asked(store):
    import mlflow

    register(store)
    folder = model_of(store).artifact_location
    model = mlflow.pyfunc.load_model(folder)
    serving = (Path(folder.removeprefix("file://")) / "serving_input_example.json").read_text()
    (answer,) = mlflow.models.validate_serving_input(folder, serving)
    assert (answer["status"], len(answer["predictions"])) == ("ok", 2)
    (direct,) = model.predict(model.input_example, params={"topk": 2})
    assert direct["predictions"][0]["label"] == answer["predictions"][0]["label"]
    asked = {"labels": ["a dog", "a cat", "a bird"], "threshold": 1.0, "topk": 1, "clips": 2}
    found = model.predict([model.input_example[0], "/no/such.mp4"], params=asked)
    assert [one["status"] for one in found] == ["none", "failed"]
    assert found[0]["predictions"][0]["label"] in asked["labels"]
    with pytest.raises(mlflow.MlflowException, match="topk=0"):
        model.predict(model.input_example, params={"topk": 0})


def test_weights_in_a_file_are_asked_for_or_travel(store, runs, monkeypatch):
    import mlflow

    import vlmodels

    said = register(store, 1)[1]
    assert "my toy.safetensors" in said
    assert "VIDADAPT_WEIGHTS" in said
    weights = Path(runs[0].removeprefix("sqlite:///")).parents[1] / "elsewhere" / "my toy.safetensors"
    folder, run_id = store[1][1]
    carries = TrackingConfig(uri=store[0], register="whole", include_weights=True)
    register_model(folder, carries, run_id, print)
    needs, whole = (model_of(store, name).artifact_location for name in ("m", "whole"))
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        assert mlflow.pyfunc.load_model(whole).predict(["/no.mp4"])[0]["status"] == "failed"
        assert vlmodels.load(whole.removeprefix("file://")).classes
        with pytest.raises(UserError, match="VIDADAPT_WEIGHTS=FILE"):
            mlflow.pyfunc.load_model(needs)
        monkeypatch.setenv("VIDADAPT_WEIGHTS", str(hidden))
        assert mlflow.pyfunc.load_model(needs).predict(["/no.mp4"])[0]["status"] == "failed"
        with pytest.raises(UserError, match="is not here"):
            register_model(folder, dataclasses.replace(carries, register="late"), run_id, print)
    finally:
        hidden.rename(weights)


def test_a_tokenizer_of_hugging_face_is_asked_for_or_travels_too(tmp_path, monkeypatch):
    import mlflow

    import vlmodels

    weights = tmp_path / "elsewhere" / "w.safetensors"
    save_weights(add_model(monkeypatch), weights)
    save_tokenizer(weights.parent)
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    settings = ("optim.epochs=2", f"tracking.uri={uri}", "tracking.system_metrics_s=0")
    of_backbone = ("backbone.name=tiny-hf", f"backbone.pretrained={weights}", "backbone.statistics=imagenet")
    data = small_runs.make_data(tmp_path)
    config = small_runs.config_of(data, tmp_path / "runs", *settings, *of_backbone, workers=1, method="adaptformer")
    plan = plan_run(config)
    run = run_training(plan, say=lambda _: None)
    store = (uri, [(tmp_path / "runs" / run.record.name, run.record.tracking.run_id)])
    said = register(store)[1]
    assert "w.safetensors" in said
    assert "tokenizer.json, tokenizer_config.json beside it" in said
    folder, run_id = store[1][0]
    carries = TrackingConfig(uri=uri, register="whole", include_weights=True)
    register_model(folder, carries, run_id, print)
    needs, whole = (Path(model_of(store, name).artifact_location.removeprefix("file://")) for name in ("m", "whole"))
    assert {"transformers", "sentencepiece"} < {
        line.partition("==")[0] for line in (needs / "requirements.txt").read_text().splitlines()
    }
    hidden = weights.parent.rename(tmp_path / "hidden")
    assert vlmodels.load(whole).method.backbone.fits("a dog")
    assert vlmodels.load(whole).method.backbone.spec.statistics == "imagenet"
    assert mlflow.pyfunc.load_model(str(whole)).predict(["/no.mp4"])[0]["status"] == "failed"
    with pytest.raises(UserError, match="VIDADAPT_WEIGHTS=FILE"):
        vlmodels.load(needs)
    monkeypatch.setenv("VIDADAPT_WEIGHTS", str(hidden / weights.name))
    assert mlflow.pyfunc.load_model(str(needs)).predict(["/no.mp4"])[0]["status"] == "failed"
    save_tokenizer(hidden, "bert")
    with pytest.raises(UserError, match="tokenizer that is not here"):
        mlflow.pyfunc.load_model(str(needs))


def test_a_perception_encoder_goes_the_whole_way(tmp_path, monkeypatch):
    """Trained, registered with its weights, loaded elsewhere: the answers are the run's."""
    import vlmodels

    save_weights(know_tiny_pe(monkeypatch), tmp_path / "pe.safetensors")
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    settings = ("optim.epochs=2", f"tracking.uri={uri}", "tracking.system_metrics_s=0")
    of_backbone = ("backbone.name=tiny-pe", f"backbone.pretrained={tmp_path / 'pe.safetensors'}")
    data = small_runs.make_data(tmp_path)
    config = small_runs.config_of(data, tmp_path / "runs", "method.layers=1-2", *settings, *of_backbone, workers=1)
    run = run_training(plan_run(config), say=lambda _: None)
    tracking = TrackingConfig(uri=uri, register="pe", include_weights=True)
    register_model(tmp_path / "runs" / run.record.name, tracking, run.record.tracking.run_id, print)
    (tmp_path / "pe.safetensors").unlink()
    model = model_of((uri, []), "pe").artifact_location
    assert "timm" in Path(model.removeprefix("file://"), "requirements.txt").read_text()
    predict = vlmodels.load(model.removeprefix("file://"))
    video = str(next((tmp_path / "videos").rglob("*.mp4")))
    assert {guess.label for guess in predict(video)} == set(run.record.classes["base"])


def test_an_upload_that_fails_leaves_no_version(store):
    artifacts = Path(store[0].removeprefix("sqlite:///")).parent / "mlartifacts"
    shutil.rmtree(artifacts / "models", ignore_errors=True)
    (artifacts / "models").touch()  # no folder can be made there
    with pytest.raises(OSError, match="models"):
        register(store)
    client = connect(store[0])
    assert not client.search_model_versions("name = 'm'")
    (artifacts / "models").unlink()
    assert register(store)[0] == "models:/m@champion"


def test_registering_leaves_no_store_in_the_environment(store):
    before = os.environ.get("MLFLOW_TRACKING_URI")
    register(store)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
