"""The MLflow run of a whole sweep, of which its trials' runs, and the winner's, are children."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.record import redacted, shown
from pipelines.runs.tracking import PARENT, RUN, connect, experiment_of, params_of
from pipelines.sweeps.folder import STATUS
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import TrackingConfig
    from pipelines.sweeps.plan import SweepPlan


KEY = "vidadapt.sweep"
"""Tag that tells a sweep from the same one in another folder, or begun anew."""


@dataclass
class Parent:
    """The open run; without a tracking URI there is none and nothing is told. ``status`` is what it is to end with."""

    client: Any = None
    experiment: str = ""
    run_id: str | None = None
    status: str = "FINISHED"

    def ended(self, trials: Sequence[Mapping[str, Any]], *, whole: bool) -> bool:
        """Tell how many trials failed; the sweep has too, and False is returned, if none finished or some are left."""
        counts = Counter(trial[STATUS] for trial in trials)
        succeeded = whole and bool(counts["finished"])
        self.status = "FINISHED" if succeeded else "FAILED"
        if self.client is not None:
            failed = len(trials) - counts["finished"] - counts["pruned"]
            self.client.set_tag(self.run_id, "failed_trials", str(failed))
            told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
            self.client.set_tag(self.run_id, "trials", told or "none")
        return succeeded

    @contextlib.contextmanager
    def child(self, name: str) -> Iterator[None]:
        """Make the MLflow run of what is trained here as ``name`` a child, however it ends.

        One that is another sweep's already stays so: a run has one parent.
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

    def crowned(self, winner: Mapping[str, Any] | None) -> None:
        """Tell what won, and its scores as means over seeds."""
        if self.client is None or winner is None:
            return
        from pipelines.records.run_file import numbers_of

        self.client.set_tag(self.run_id, "winner", winner["label"])
        self.client.log_metric(self.run_id, winner["chosen_on"].replace(".", "/"), winner["chosen_value"])
        scores = [numbers_of(run["metrics"]) for run in winner["runs"]]
        for name in scores[0]:
            self.client.log_metric(self.run_id, f"winner/{name}", statistics.fmean(score[name] for score in scores))

    def attach(self, folder: Path) -> None:
        """Keep a folder with the run."""
        if self.client is not None:
            self.client.log_artifacts(self.run_id, str(folder), folder.name)


@contextlib.contextmanager
def parent_run(plan: SweepPlan, tracking: Mapping[str, Any]) -> Iterator[Parent]:
    """Open the sweep's run, that of an earlier session if there was one; at the end nothing below it is left open.

    ``tracking`` is that of ``sweep.json``: the sweep's key and, if it is known by now, the run's id.

    Raises:
        UserError: the tracking store cannot be reached or written.
    """
    config = plan.base.tracking
    if config.uri is None:
        yield Parent()
        return
    with _reached(config):
        client = connect(config.uri)
        experiment = experiment_of(client, config)
        run = _known(client, experiment, tracking) or _created(client, experiment, plan, tracking["key"])
        run_id = str(run.info.run_id)
        client.update_run(run_id, "RUNNING")
        if not run.data.params:  # a new one, or one whose session was killed right here
            client.log_batch(run_id, params=_params(plan))
        _close_children(client, experiment, run_id)
    parent = Parent(client, experiment, run_id)
    status = "KILLED"
    try:
        yield parent
        status = parent.status
    except Exception:
        status = "FAILED"
        raise
    finally:
        with contextlib.suppress(Exception):  # the first error is the one to show
            _close_children(client, experiment, run_id)
            client.set_terminated(run_id, status)


def abandon(plan: SweepPlan, sweep: Mapping[str, Any] | None) -> None:
    """End what a killed session has left open of a ``sweep`` (its ``sweep.json``) that is about to begin anew.

    Raises:
        UserError: the tracking store cannot be reached or written.
    """
    config = plan.base.tracking
    if config.uri is None or sweep is None:
        return
    with _reached(config):
        client = connect(config.uri)
        experiment = experiment_of(client, config)
        run = _known(client, experiment, sweep["tracking"])
        if run is not None and run.info.status == "RUNNING":
            _close_children(client, experiment, run.info.run_id)
            client.set_terminated(run.info.run_id, "KILLED")


@contextlib.contextmanager
def _reached(config: TrackingConfig) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {redacted(config.uri or '')} cannot be used: {error}") from error


def _known(client: Any, experiment: str, tracking: Mapping[str, Any]) -> Any:
    """The run of an earlier session, by its id or, if that was killed before it could note it, by the key; or None."""
    from mlflow.exceptions import MlflowException

    if tracking["run_id"] is not None:
        with contextlib.suppress(MlflowException):  # it is in another store
            run = client.get_run(tracking["run_id"])
            if run.info.lifecycle_stage == "active":
                return run
    key = tracking.get("key", "")  # a sweep that an earlier version began has none
    return next(iter(client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")), None) if key else None


def _created(client: Any, experiment: str, plan: SweepPlan, key: str) -> Any:
    note = f"{plan.title} of {plan.base.method}: {plan.count} trials"
    return client.create_run(
        experiment, run_name=plan.name, tags={RUN: plan.name, KEY: key, "mlflow.note.content": note}
    )


def _params(plan: SweepPlan) -> list[Any]:
    space = {key: str(domain) for key, domain in plan.space.items()}
    if plan.ablation is not None:
        space |= {key: ", ".join(_values(plan, key)) for key in _keys(plan)}
    return params_of({"config": shown(plan.base), "space": space})


def _keys(plan: SweepPlan) -> Sequence[str]:
    assert plan.ablation is not None
    return list(dict.fromkeys(key for row in plan.ablation.rows for key in row.setting))


def _values(plan: SweepPlan, key: str) -> Sequence[str]:
    assert plan.ablation is not None
    return list(dict.fromkeys(row.setting[key] for row in plan.ablation.rows if key in row.setting))


def _close_children(client: Any, experiment: str, run_id: str) -> None:
    """End the runs of trials whose process was lost or stopped."""
    for child in client.search_runs([experiment], f"tags.`{PARENT}` = '{run_id}' and attributes.status = 'RUNNING'"):
        client.set_terminated(child.info.run_id, "KILLED")
