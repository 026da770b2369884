"""The MLflow run of a whole sweep; the runs of its trials and of its winner are its children."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.record import redacted, shown
from pipelines.records.run_file import numbers_of
from pipelines.runs.tracking import PARENT, RUN, connect, experiment_of, params_of, source_tags
from pipelines.sweeps.records import SweepTracking, TrialRecord, WinnerRecord
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import TrackingConfig
    from pipelines.sweeps.plan import SweepPlan
    from tune_spaces.ablation_file import Ablation


KEY = "vidadapt.sweep"
"""Tag that distinguishes a sweep from the same one in another folder, or begun anew."""


@dataclass
class SweepRun:
    """The open run; without a tracking URI there is none, and nothing is logged.

    Attributes:
        status: what the run ends with.
    """

    client: Any = None
    experiment: str = ""
    run_id: str | None = None
    status: str = "FINISHED"

    def record_trials(self, trials: Sequence[TrialRecord], *, complete: bool) -> bool:
        """Log how many trials ended in which way; return whether the sweep succeeded.

        It failed if no trial finished or not all have ended (``complete``).
        """
        counts = Counter(trial.status for trial in trials)
        succeeded = complete and bool(counts["finished"])
        self.status = "FINISHED" if succeeded else "FAILED"
        if self.client is not None:
            failed = len(trials) - counts["finished"] - counts["pruned"]
            self.client.set_tag(self.run_id, "failed_trials", str(failed))
            words = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            self.client.set_tag(self.run_id, "trials", words or "none")
        return succeeded

    @contextlib.contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Make the MLflow run of what is trained here as ``name`` a child, however it ends.

        A child of another sweep stays one: a run has one parent.
        """
        try:
            yield
        finally:
            self._adopt(name)

    def _adopt(self, name: str) -> None:
        if self.client is None:
            return
        with contextlib.suppress(Exception):  # the winner is trained, and its own run is whole
            for run in self.client.search_runs([self.experiment], f"tags.`{RUN}` = '{name}'"):
                if PARENT not in run.data.tags:
                    self.client.set_tag(run.info.run_id, PARENT, self.run_id)

    def record_winner(self, winner: WinnerRecord | None) -> None:
        """Log what won, and its scores as means over seeds."""
        if self.client is None or winner is None:
            return
        self.client.set_tag(self.run_id, "winner", winner.label)
        self.client.log_metric(self.run_id, winner.chosen_on.replace(".", "/"), winner.chosen_value)
        scores = [numbers_of(run.metrics) for run in winner.runs]
        for name in scores[0]:
            self.client.log_metric(self.run_id, f"winner/{name}", statistics.fmean(score[name] for score in scores))

    def attach(self, folder: Path) -> None:
        """Keep a folder with the run."""
        if self.client is not None:
            self.client.log_artifacts(self.run_id, str(folder), folder.name)


@contextlib.contextmanager
def open_sweep_run(plan: SweepPlan, tracking: SweepTracking) -> Iterator[SweepRun]:
    """Open the sweep's run, that of an earlier session if there was one; at the end nothing below it is left open.

    Args:
        plan: the sweep.
        tracking: that of ``sweep.json``: the sweep's key and, if it is known by now, the run's id.

    Raises:
        UserError: the tracking store cannot be reached or written.
    """
    config = plan.base.tracking
    if config.uri is None:
        yield SweepRun()
        return
    with _usable(config):
        client = connect(config.uri)
        experiment = experiment_of(client, config)
        run = _find(client, experiment, tracking) or _create(client, experiment, plan, tracking.key)
        run_id = str(run.info.run_id)
        client.update_run(run_id, "RUNNING")
        if not run.data.params:  # a new one, or one whose session was killed right here
            client.log_batch(run_id, params=_params(plan))
        _close_children(client, experiment, run_id)
    sweep_run = SweepRun(client, experiment, run_id)
    status = "KILLED"
    try:
        yield sweep_run
        status = sweep_run.status
    except Exception:
        status = "FAILED"
        raise
    finally:
        with contextlib.suppress(Exception):  # the first error is the one to show
            _close_children(client, experiment, run_id)
            client.set_terminated(run_id, status)


def end_unfinished(plan: SweepPlan, tracking: SweepTracking | None) -> None:
    """End the run that a killed session left open, and its children, of a sweep that is about to begin anew.

    Args:
        plan: the sweep.
        tracking: that of ``sweep.json``; None without a session.

    Raises:
        UserError: the tracking store cannot be reached or written.
    """
    config = plan.base.tracking
    if config.uri is None or tracking is None:
        return
    with _usable(config):
        client = connect(config.uri)
        experiment = experiment_of(client, config)
        run = _find(client, experiment, tracking)
        if run is not None and run.info.status == "RUNNING":
            _close_children(client, experiment, run.info.run_id)
            client.set_terminated(run.info.run_id, "KILLED")


@contextlib.contextmanager
def _usable(config: TrackingConfig) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {redacted(config.uri or '')} cannot be used: {error}") from error


def _find(client: Any, experiment: str, tracking: SweepTracking) -> Any:
    """Return the run of an earlier session, or None: by its id or, if no session could note that, by the key."""
    from mlflow.exceptions import MlflowException

    if tracking.run_id is not None:
        with contextlib.suppress(MlflowException):  # it is in another store
            run = client.get_run(tracking.run_id)
            if run.info.lifecycle_stage == "active":
                return run
    if not tracking.key:
        return None
    return next(iter(client.search_runs([experiment], f"tags.`{KEY}` = '{tracking.key}'")), None)


def _create(client: Any, experiment: str, plan: SweepPlan, key: str) -> Any:
    note = f"{plan.title} of {plan.base.method}: {plan.count} trials"
    return client.create_run(
        experiment, run_name=plan.name, tags={**source_tags(), RUN: plan.name, KEY: key, "mlflow.note.content": note}
    )


def _params(plan: SweepPlan) -> list[Any]:
    space = {key: str(domain) for key, domain in plan.space.items()}
    if plan.ablation is not None:
        space |= {key: ", ".join(values) for key, values in _values_by_key(plan.ablation).items()}
    return params_of({"config": shown(plan.base), "space": space})


def _values_by_key(ablation: Ablation) -> dict[str, list[str]]:
    """Return the different values of each key in an ablation's rows, in order of appearance."""
    found: dict[str, list[str]] = {}
    for row in ablation.rows:
        for key, value in row.setting.items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return found


def _close_children(client: Any, experiment: str, run_id: str) -> None:
    """End the runs of trials whose process was lost or stopped."""
    for child in client.search_runs([experiment], f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"):
        client.set_terminated(child.info.run_id, "KILLED")
