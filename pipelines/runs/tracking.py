"""Record runs in MLflow: by the one process that started a run, never by its workers.

The client is used directly. Every run ends: as FINISHED, FAILED, or KILLED if it was stopped; one that a killed process
left open is closed when the same run starts again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.config.plain import flatten
from pipelines.config.record import redacted, shown
from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.run_file import Facts
from vlmodels.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


RUN = "vidadapt.run"
"""Tag that holds the name of a run's folder."""

PARENT = "mlflow.parentRunId"
"""MLflow's own tag for the parent of a run."""


class Tracker:
    """Records one run; without a tracking URI every call does nothing.

    Args:
        config: tracking URI and experiment.
        title: the run's name in MLflow, if not its own.
        parent: the MLflow run that it is a child of.

    Attributes:
        run_id: MLflow's, once the run is started.
    """

    def __init__(self, config: TrackingConfig, *, title: str = "", parent: str | None = None) -> None:
        self.run_id: str | None = None
        self._config = config
        self._title = title
        self._parent = parent
        self._client: Any = None

    def start(self, config: TrainConfig, name: str, facts: Facts) -> None:
        """Open a run called ``name`` and log the whole resolved configuration and ``facts``.

        Raises:
            UserError: the tracking store cannot be reached or written.
        """
        if self._config.uri is None:
            return
        try:
            self._client = connect(self._config.uri)
            experiment = experiment_of(self._client, self._config)
            for earlier in self._client.search_runs([experiment], f"tags.\"{RUN}\" = '{name}'"):
                if earlier.info.status == "RUNNING":
                    self._client.set_terminated(earlier.info.run_id, "KILLED")
            tags = {RUN: name} | ({PARENT: self._parent} if self._parent else {})
            self.run_id = self._client.create_run(experiment, run_name=self._title or name, tags=tags).info.run_id
            self._client.log_batch(self.run_id, params=params_of({**shown(config), "facts": facts.to_json()}))
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
        if self._client is None or self.run_id is None:
            return
        self._client.set_tag(self.run_id, "outcome" if stopped else "error", reason[:5000])
        self._client.set_terminated(self.run_id, "KILLED" if stopped else "FAILED")
        self._client = None


class EpochLog:
    """Logs each epoch once to a tracker; while MLflow is away, training continues.

    Args:
        tracker: gets the epochs.
        note: gets a line for the reader if MLflow fails.
    """

    def __init__(self, tracker: Tracker, note: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._note = note
        self._logged: set[float] = set()

    def __call__(self, metrics: Mapping[str, float]) -> None:
        """Log an epoch."""
        epoch = int(metrics["epoch"])
        try:
            self._log(metrics)
        except Exception as error:  # noqa: BLE001 - training continues; the numbers are in run.json too
            self._note(f"MLflow did not take epoch {epoch} ({type(error).__name__}); training continues")

    def complete(self, history: Iterable[Mapping[str, float]]) -> None:
        """Log the epochs that are missing: those of an earlier driver, or of the time when MLflow was away."""
        for metrics in history:
            if metrics["epoch"] not in self._logged:
                self._log(metrics)

    def _log(self, metrics: Mapping[str, float]) -> None:
        self._tracker.epoch(int(metrics["epoch"]), metrics)
        self._logged.add(metrics["epoch"])


def connect(uri: str) -> Any:
    """Return a client of the store at ``uri``.

    A new SQLite store is created here, with its tables: docs/RAY.md#mlflow-on-sqlite.
    """
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_of(client: Any, config: TrackingConfig) -> str:
    """Return the experiment's id; it is created if there is none."""
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return str(found.experiment_id)
    artifacts = None
    if config.uri is not None and config.uri.startswith("sqlite:///"):
        artifacts = (Path(config.uri.removeprefix("sqlite:///")).parent / "mlartifacts").resolve().as_uri()
    return str(client.create_experiment(config.experiment, artifact_location=artifacts))


def params_of(config: Mapping[str, Any]) -> list[Any]:
    """Return MLflow's parameters for nested values, by dotted names."""
    from mlflow.entities import Param

    return [Param(key, str(value)[:6000]) for key, value in flatten(config).items()]


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
