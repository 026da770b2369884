"""Record runs in MLflow: by the one process that started a run, never by its workers.

The client is used directly. Every run ends: as FINISHED, FAILED, or KILLED if it was stopped; one that a killed process
left open is closed when the same run starts again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.plain import flatten
from pipelines.config.record import redacted, shown
from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.run_file import Facts
from pipelines.runs.data_inputs import DataInput, mlflow_inputs
from pipelines.runs.mlflow_store import ARTIFACTS, PATIENCE_S, Say, answers, connect, first_line, patiently, sqlite_file
from pipelines.runs.progress import LoadSampled
from pipelines.runs.run_tags import KIND, TRAINING, mark_as_training, source_tags
from pipelines.runs.system_load import metric_names
from vlmodels.errors import UserError

__all__ = ["PARENT", "RUN", "EpochLog", "Tracker", "connect", "experiment_of", "params_of", "source_tags"]

RUN = "vidadapt.run"
"""Tag that holds the name of a run's folder."""

PLACE = "vidadapt.place"
"""Tag that holds where that folder is: the same run may be trained elsewhere."""

PARENT = "mlflow.parentRunId"
"""MLflow's own tag for the parent of a run."""


class Tracker:
    """Records one run; without a tracking URI every call does nothing.

    Args:
        config: tracking URI and experiment.
        title: the run's name in MLflow, if not its own.
        parent: the MLflow run that it is a child of.
        say: gets a line while MLflow is waited for.

    Attributes:
        run_id: MLflow's, once the run is started.
    """

    def __init__(self, config: TrackingConfig, *, title: str = "", parent: str | None = None, say: Say = print) -> None:
        self.run_id: str | None = None
        self._config = config
        self._title = title
        self._parent = parent
        self._say = say
        self._client: Any = None

    def start(
        self, config: TrainConfig, name: str, facts: Facts, place: str = "", inputs: Sequence[DataInput] = ()
    ) -> None:
        """Open a run called ``name``, kept at ``place``; log the resolved configuration, ``facts`` and ``inputs``.

        Raises:
            UserError: the tracking store cannot be reached or written.
        """
        uri = self._config.uri
        if uri is None:
            return
        try:
            self._client = connect(uri, self._say)
            self.run_id = patiently(lambda: self._open(name, place), uri, self._say)
            params = params_of({**shown(config), "facts": facts.to_json()})
            patiently(lambda: self._client.log_batch(self.run_id, params=params), uri, self._say)
            if inputs:
                datasets = mlflow_inputs(inputs)
                patiently(lambda: self._client.log_inputs(self.run_id, datasets), uri, self._say)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"MLflow at {redacted(uri)} cannot be used: {first_line(error)}") from error

    def _open(self, name: str, place: str) -> str:
        experiment = experiment_of(self._client, self._config)
        for earlier in self._client.search_runs([experiment], f"tags.\"{RUN}\" = '{name}'"):
            if earlier.info.status == "RUNNING" and earlier.data.tags.get(PLACE, place) == place:
                self._client.set_terminated(earlier.info.run_id, "KILLED")
        tags = {**source_tags(), RUN: name, PLACE: place} | ({PARENT: self._parent} if self._parent else {})
        return str(self._client.create_run(experiment, run_name=self._title or name, tags=tags).info.run_id)

    def resume(self, run_id: str) -> set[float]:
        """Take up a run that MLflow has not whole; return the epochs that it has.

        Raises:
            UserError: the store cannot be reached.
            Exception: of MLflow's, such as for a run that it does not know.
        """
        if self._config.uri is None:
            return set()
        self._client, self.run_id = connect(self._config.uri, self._say), run_id
        self._client.get_run(run_id)
        return {float(metric.step) for metric in self._client.get_metric_history(run_id, "loss")}

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the numbers of one epoch (1-based step)."""
        self._metrics({name: value for name, value in metrics.items() if name != "epoch"}, epoch)

    def results(self, metrics: Mapping[str, float]) -> None:
        """Log the final numbers."""
        self._metrics(metrics, 0)

    def system(self, metrics: Mapping[str, float], step: int) -> None:
        """Log a sample of a machine's load."""
        self._metrics(metrics, step)

    def _metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self._client is None:
            return
        self._probe()
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])

    def finish(self, run_dir: Path) -> None:
        """Attach the run's folder and end the run."""
        if self._client is None:
            return
        uri = self._config.uri or ""
        patiently(lambda: self._client.log_artifacts(self.run_id, str(run_dir)), uri, self._say)
        patiently(lambda: self._client.set_terminated(self.run_id, "FINISHED"), uri, self._say)
        self._client = None

    def fail(self, reason: str, *, stopped: bool = False) -> None:
        """End the run as failed, or as stopped on purpose, with the reason as a tag."""
        if self._client is None or self.run_id is None:
            return
        self._probe()
        self._client.set_tag(self.run_id, "outcome" if stopped else "error", reason[:5000])
        self._client.set_terminated(self.run_id, "KILLED" if stopped else "FAILED")
        self._client = None

    def _probe(self) -> None:
        """Raise ConnectionError if the server does not answer soon: MLflow itself would try for minutes."""
        if not answers(self._config.uri or ""):
            raise ConnectionError(f"MLflow at {redacted(self._config.uri or '')} does not answer")


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

    def complete(self, history: Iterable[Mapping[str, float]], *, known: Collection[float] = ()) -> None:
        """Log the epochs that are missing: those of an earlier driver, or of the time when MLflow was away.

        MLflow has the epochs ``known``.
        """
        self._logged |= set(known)
        for metrics in history:
            if metrics["epoch"] not in self._logged:
                self._log(metrics)

    def _log(self, metrics: Mapping[str, float]) -> None:
        self._tracker.epoch(int(metrics["epoch"]), metrics)
        self._logged.add(metrics["epoch"])


class LoadLog:
    """Logs the load of machines to a tracker; while MLflow is away, samples are left out.

    Args:
        tracker: gets the samples.
        several: whether their names tell machines apart.
        clock: seconds.
    """

    def __init__(self, tracker: Tracker, *, several: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._tracker = tracker
        self._several = several
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._not_before = -math.inf

    def __call__(self, sample: LoadSampled) -> None:
        """Log a sample."""
        if self._clock() < self._not_before:
            return
        names = metric_names(sample.load, sample.host, several=self._several)
        try:
            self._tracker.system(names, self._counts[sample.host])
        except Exception:  # noqa: BLE001 - training continues without
            self._not_before = self._clock() + PATIENCE_S
        self._counts[sample.host] += 1


def experiment_of(client: Any, config: TrackingConfig) -> str:
    """Return the experiment's id; it is created if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        mark_as_training(client, found)
        return str(found.experiment_id)
    file = sqlite_file(config.uri or "")
    artifacts = (file.parent / ARTIFACTS).resolve().as_uri() if file else None
    try:
        return str(client.create_experiment(config.experiment, artifact_location=artifacts, tags={KIND: TRAINING}))
    except MlflowException:
        found = client.get_experiment_by_name(config.experiment)  # another process was faster
        if found is None:
            raise
        return str(found.experiment_id)


def params_of(config: Mapping[str, Any]) -> list[Any]:
    """Return MLflow's parameters for nested values, by dotted names."""
    from mlflow.entities import Param

    return [Param(key, str(value)[:6000]) for key, value in flatten(config).items()]
