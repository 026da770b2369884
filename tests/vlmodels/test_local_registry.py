"""The folder of a registered model is the one that MLflow finds, or None where MLflow has to be asked."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_clip import CLASSES
from tests.helpers.videofiles import write_video
from vlmodels.checkpoint import save_adapter
from vlmodels.clip import create
from vlmodels.local_registry import SCHEMA, local_model_folder
from vlmodels.methods.msta import MSTA
from vlmodels.predictor import load

MODEL = """
import mlflow
from mlflow.pyfunc import PythonModel
class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input
mlflow.models.set_model(Model())
"""
# Two versions of "some", the first with the alias, as ``runs/registry.py`` makes them; "plain" is just a folder.
REGISTER = """
import sys, mlflow
root, run = sys.argv[1:]
mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
experiment = mlflow.create_experiment("e", artifact_location=f"{root}/artefacts")
for _ in range(2):
    with mlflow.start_run(experiment_id=experiment):
        mlflow.pyfunc.log_model(name="model", python_model=f"{root}/model.py", artifacts={"run": run},
                                pip_requirements=["vidadapt"], registered_model_name="some")
client = mlflow.MlflowClient()
client.set_registered_model_alias("some", "champion", 1)
client.create_registered_model("plain")
client.create_model_version("plain", source=f"file://{run}")
client.create_model_version("plain", source=run)
client.create_model_version("plain", source="s3://bucket/run")
client.create_model_version("plain", source=run + "/gone")
client.create_model_version("plain", source=run)
client.delete_model_version("plain", "5")
client.set_registered_model_alias("plain", "remote", 3)
"""
SAID_BY_MLFLOW = """
import mlflow, sys
for uri in sys.argv[1:]:
    print(mlflow.artifacts.download_artifacts(uri))
"""
PREDICT = """
import sys
from pipelines.predict import main
assert main(sys.argv[1:]) == 0
print(sorted({"mlflow", "ray", "pandas", "sympy.core", "timm.models"} & set(sys.modules)))
"""
KNOWN = ("models:/some@champion", "models:/some/1", "models:/some/2", "models:/plain/1", "models:/plain/2")


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    method = MSTA(create("toy", weights="toy", num_frames=4), MSTA.Config(dims=8))
    method.set_classes(CLASSES)
    (root / "run").mkdir()
    save_adapter(root / "run", method)
    (root / "model.py").write_text(MODEL)
    python(REGISTER, root, root / "run")
    return root


@pytest.fixture
def chosen(registry, monkeypatch):
    """The registry as a fresh process sees it: named by the environment, MLflow not imported."""
    for name in [name for name in sys.modules if name in ("mlflow", "pyspark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry}/mlflow.db")
    return registry


def test_the_folder_is_the_one_that_mlflow_finds(chosen):
    said = [Path(line.removeprefix("file://")) for line in python(SAID_BY_MLFLOW, *KNOWN)]
    assert [local_model_folder(uri) for uri in KNOWN] == said
    assert all(list(folder.rglob("adapter.safetensors")) for folder in said)


@pytest.mark.parametrize(
    "uri",
    [
        "models:/some@nobody",
        "models:/nothing@champion",
        "models:/some/9",
        "models:/some/latest",
        "models:/some@latest",
        "models:/some/Production",
        "models:/some/1/artifacts",
        "models:/m-0123456789abcdef0123456789abcdef",
        "models:/plain@remote",
        "models:/plain/3",
        "models:/plain/4",
        "models:/plain/5",
        "models:/'; DROP TABLE model_versions; --@x",
        "models:some",
    ],
)
def test_mlflow_is_asked_for_what_is_missing_remote_or_named_otherwise(chosen, uri):
    assert local_model_folder(uri) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_REGISTRY_URI", "http://localhost:5000"),
        ("MLFLOW_TRACKING_URI", "file:///runs"),
        ("MLFLOW_TRACKING_URI", "sqlite:////nowhere/mlflow.db"),
        ("MLFLOW_TRACKING_URI", ""),
        ("MLFLOW_ENABLE_WORKSPACES", "true"),
    ],
)
def test_mlflow_is_asked_where_the_registry_is_of_another_kind(chosen, monkeypatch, name, value):
    assert local_model_folder("models:/some@champion") is not None
    monkeypatch.setenv(name, value)
    assert local_model_folder("models:/some@champion") is None


def test_mlflow_is_asked_where_it_is_imported(chosen, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    assert local_model_folder("models:/some@champion") is None


@pytest.mark.parametrize("change", ["UPDATE alembic_version SET version_num = 'other'", "DROP TABLE model_versions"])
def test_mlflow_is_asked_about_tables_of_another_form(chosen, monkeypatch, tmp_path, change):
    copy = shutil.copy(chosen / "mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    assert local_model_folder("models:/some@champion") is not None
    with sqlite3.connect(copy) as store:
        store.execute(change)
    store.close()
    assert local_model_folder("models:/some@champion") is None


def test_a_file_that_is_no_database(chosen, monkeypatch, tmp_path):
    (tmp_path / "mlflow.db").write_text("text")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert local_model_folder("models:/some@champion") is None


def test_looking_changes_nothing(chosen):
    before = {path: path.stat().st_mtime_ns for path in chosen.rglob("*")}
    assert local_model_folder("models:/some@champion") is not None
    assert {path: path.stat().st_mtime_ns for path in chosen.rglob("*")} == before


def test_predicting_in_a_fresh_process_imports_no_mlflow(chosen, tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=8)
    lines = python(PREDICT, video, "--model", "models:/some@champion", "--topk", 1)
    assert lines[-1] == "[]"
    best = load(local_model_folder("models:/some@champion"))(video, topk=1)[0]
    assert best.label in lines[1]


def test_the_form_of_the_tables_is_that_of_the_installed_mlflow(registry):
    """After an upgrade: compare MLflow's tables with the queries (``store/db_migrations``), then set ``SCHEMA``."""
    with sqlite3.connect(registry / "mlflow.db") as store:
        assert store.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)]
    store.close()
