"""MLflow: runs and the model registry, written by the one process that started a run, never by its workers.

The client is used directly: runs always end, as FINISHED, FAILED, or KILLED where a sweep stopped them, and a run that
a killed process left open is closed when the same run starts again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.config.plain import flatten
from pipelines.config.record import redacted, shown
from pipelines.config.schema import TrackingConfig, TrainConfig
from vlmodels.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


RUN = "vidadapt.run"
"""Tag that holds the name of a run's folder."""

PARENT = "mlflow.parentRunId"


class Tracker:
    """Records one run; without a tracking URI every call does nothing.

    Args:
        config: where.
        title: what MLflow shows as the run's name, if not the run's own.
        parent: the MLflow run that it is a child of.
    """

    def __init__(self, config: TrackingConfig, *, title: str = "", parent: str | None = None) -> None:
        self._config, self._title, self._parent = config, title, parent
        self._client: Any = None
        self.run_id: str | None = None

    def start(self, config: TrainConfig, name: str, facts: Mapping[str, Any]) -> None:
        """Open a run called ``name`` and log the whole resolved configuration and ``facts``.

        Raises:
            UserError: if the tracking store cannot be reached or written.
        """
        if self._config.uri is None:
            return
        try:
            self._client = connect(self._config.uri)
            experiment = experiment_of(self._client, self._config)
            for left in self._client.search_runs([experiment], f"tags.\"{RUN}\" = '{name}'"):
                if left.info.status == "RUNNING":
                    self._client.set_terminated(left.info.run_id, "KILLED")
            tags = {RUN: name} | ({PARENT: self._parent} if self._parent else {})
            self.run_id = self._client.create_run(experiment, run_name=self._title or name, tags=tags).info.run_id
            self._client.log_batch(self.run_id, params=params_of({**shown(config), "facts": dict(facts)}))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"MLflow at {redacted(self._config.uri)} cannot be used: {_first_line(error)}") from error

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the numbers of one epoch (1-based step)."""
        self._metrics({name: value for name, value in metrics.items() if name != "epoch"}, epoch)

    def results(self, metrics: Mapping[str, float]) -> None:
        """Log the final numbers."""
        self._metrics(metrics, 0)

    def _metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])

    def finish(self, run_dir: Path) -> None:
        """Attach the run's folder and end the run."""
        if self._client is None:
            return
        self._client.log_artifacts(self.run_id, str(run_dir))
        self._client.set_terminated(self.run_id, "FINISHED")
        self._client = None

    def fail(self, reason: str, *, stopped: bool = False) -> None:
        """End the run as failed, or as stopped on purpose, with the reason as a tag."""
        if self._client is None:
            return
        self._client.set_tag(self.run_id, "outcome" if stopped else "error", reason[:5000])
        self._client.set_terminated(self.run_id, "KILLED" if stopped else "FAILED")
        self._client = None


def connect(uri: str) -> Any:
    """Client of the store at ``uri``; a new SQLite store is created, with its tables, before anyone logs to it."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_of(client: Any, config: TrackingConfig) -> str:
    """Id of the experiment, which is made if there is none."""
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return str(found.experiment_id)
    artifacts = None
    if config.uri is not None and config.uri.startswith("sqlite:///"):
        artifacts = (Path(config.uri.removeprefix("sqlite:///")).parent / "mlartifacts").resolve().as_uri()
    return str(client.create_experiment(config.experiment, artifact_location=artifacts))


def params_of(config: Mapping[str, Any]) -> list[Any]:
    """MLflow's parameters for nested values, by dotted names."""
    from mlflow.entities import Param

    return [Param(key, str(value)[:6000]) for key, value in flatten(config).items()]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
