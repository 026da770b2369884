"""Register finished runs as models in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config.record import redacted
from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.home import Home
from pipelines.runs.record import RunResult
from pipelines.runs.tracking import connect
from vlmodels.errors import UserError


def registered(result: RunResult, home: Home, config: TrainConfig, say: Callable[[str], None]) -> RunResult:
    """Register the finished run if the configuration asks for it."""
    if config.tracking.register:
        register_run(result, config, home=home, say=say)
    return result


def register_run(
    result: RunResult, config: TrainConfig, *, home: Home | None = None, say: Callable[[str], None] = print
) -> str:
    """Register a finished run under the name that ``config`` gives; return the model's URI."""
    with (home or Home.at(config.out)).local_copy(result.record["name"]) as folder:
        model = register(folder, config.tracking, result.record["tracking"].get("run_id"))
    say(f"{result.record['name']}: in the registry as {model}")
    return model


def register(run_dir: Path, config: TrackingConfig, run_id: str | None) -> str:
    """Put a finished run's adapter into the registry and point the alias at it; return ``models:/name@alias``.

    The registered model is a pyfunc; its code is ``pipelines/runs/registered_model.py`` and its artefact the run's
    folder: adapter, configuration and class names, not the backbone. A version that the alias already points
    to is not made again.

    Raises:
        UserError: without a tracking URI, a name, or a tracked run to register from.
    """
    if config.uri is None or config.register is None or run_id is None:
        raise UserError(
            "registering needs --register NAME and a run that MLflow tracks (--mlflow URI; --fresh repeats)"
        )
    client = connect(config.uri)
    model = f"models:/{config.register}@{config.alias}"
    if _aliased_run(client, config) == run_id:
        return model
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"this run is tracked elsewhere than {redacted(config.uri)}; register it there, or repeat it (--fresh)"
        ) from error

    from pipelines.reports.model_card import description
    from pipelines.runs import registered_model

    mlflow.set_tracking_uri(config.uri)
    mlflow.set_registry_uri(config.uri)
    for name in ("mlflow", "mlflow.pyfunc", "mlflow.models"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=registered_model.__file__,
            artifacts={"run": str(run_dir)},
            pip_requirements=["vidadapt"],
            registered_model_name=config.register,
        )
    client.set_registered_model_alias(config.register, config.alias, info.registered_model_version)
    client.update_model_version(config.register, str(info.registered_model_version), description(run_dir))
    return model


def _aliased_run(client: Any, config: TrackingConfig) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(config.register, config.alias).run_id)
    except MlflowException:
        return None
