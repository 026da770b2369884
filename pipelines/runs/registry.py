"""Register finished runs as models in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.config.record import redacted
from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.home import Home
from pipelines.runs.mlflow_store import connect, first_line, patiently
from pipelines.runs.record import RunResult
from vlmodels.errors import UserError

_NEEDED = ("mlflow", "torch", "torchvision", "open_clip_torch", "safetensors", "einops", "numpy", "av", "pillow")
"""What the predictor in ``vlmodels`` imports."""


def register_run(
    result: RunResult, config: TrainConfig, *, home: Home | None = None, say: Callable[[str], None] = print
) -> str:
    """Register a finished run under the name that ``config`` gives; return the model's URI.

    Raises:
        UserError: see ``register_model``.
    """
    name = result.record.name
    try:
        with (home or Home.at(config.out)).local_copy(name) as folder:
            model = register_model(folder, config.tracking, result.record.tracking.run_id, say)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} is whole in {result.run_dir}, but MLflow at {redacted(config.tracking.uri or '')} did not "
            f"register it ({first_line(error)[:200]}); the same command tries again"
        ) from error
    say(f"{name}: registered as {model}")
    return model


def register_model(
    run_dir: Path, tracking: TrackingConfig, run_id: str | None, say: Callable[[str], None] = print
) -> str:
    """Put a finished run's adapter into the registry and point the alias at it; return ``models:/name@alias``.

    The model is a pyfunc: its code is ``registered_model.py`` and a copy of ``vlmodels``, its artefact the run's folder
    (adapter, configuration and class names, not the backbone). If the alias points to this run already, nothing is
    done.

    Args:
        run_dir: the run's folder, on this machine.
        tracking: URI, name and alias.
        run_id: MLflow's id of the run.
        say: gets a line while MLflow is waited for.

    Raises:
        UserError: no tracking URI, no name, or a run that this store does not track.
    """
    if tracking.uri is None or tracking.register is None or run_id is None:
        raise UserError(
            "registering needs --register NAME and a run that MLflow tracks (--mlflow URI; --fresh repeats)"
        )
    client = connect(tracking.uri, say)
    model = f"models:/{tracking.register}@{tracking.alias}"
    if _aliased_run(client, tracking) == run_id:
        return model
    _check_tracked(client, tracking.uri, run_id)

    from pipelines.reports.model_card import description

    version = patiently(lambda: _log_model(run_dir, tracking, run_id), tracking.uri, say)
    client.set_registered_model_alias(tracking.register, tracking.alias, version)
    client.update_model_version(tracking.register, str(version), description(run_dir))
    return model


def _aliased_run(client: Any, tracking: TrackingConfig) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(tracking.register, tracking.alias).run_id)
    except MlflowException:
        return None


def _check_tracked(client: Any, uri: str, run_id: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"this run is tracked elsewhere than {redacted(uri)}; register it there, or repeat it (--fresh)"
        ) from error


def _log_model(run_dir: Path, tracking: TrackingConfig, run_id: str) -> Any:
    """Make a new version of the model; return its number."""
    import mlflow

    import vlmodels
    from pipelines.runs import registered_model

    mlflow.set_tracking_uri(tracking.uri)
    mlflow.set_registry_uri(tracking.uri)
    for name in ("mlflow", "mlflow.pyfunc", "mlflow.models"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=registered_model.__file__,
            artifacts={"run": str(run_dir)},
            code_paths=[str(Path(vlmodels.__file__).parent)],
            pip_requirements=needed_packages(),
            registered_model_name=tracking.register,
        )
    return info.registered_model_version


def needed_packages() -> list[str]:
    """Return what a registered model needs beside its own copy of ``vlmodels``, each pinned to the version here.

    ``vidadapt`` itself is not among them: it is on no index, and whoever registers that name there would be installed.
    """
    return [f"{name}=={version(name)}" for name in _NEEDED]
