"""The MLflow run of a whole sweep, of which its trials' runs are children."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import PARENT, RUN, connect, experiment_of, params_of, redacted, shown
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.sweep_plan import SweepPlan


@dataclass(frozen=True)
class Parent:
    """The open run; without a tracking URI there is none and nothing is told."""

    client: Any = None
    run_id: str | None = None

    def crowned(self, winner: Mapping[str, Any] | None) -> None:
        """Tell what won, and its scores as means over seeds."""
        if self.client is None or winner is None:
            return
        from pipelines.train import numbers_of

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
def parent_run(plan: SweepPlan, earlier: str | None) -> Iterator[Parent]:
    """Open the sweep's run, that of an ``earlier`` session if there was one; at the end nothing below it is left open.

    Raises:
        UserError: the tracking store cannot be reached or written.
    """
    config = plan.base.tracking
    if config.uri is None:
        yield Parent()
        return
    try:
        client = connect(config.uri)
        experiment = experiment_of(client, config)
        run_id = _reopened(client, earlier) or _created(client, experiment, plan)
        _close_children(client, experiment, run_id)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"MLflow at {redacted(config.uri)} cannot be used: {error}") from error
    status = "KILLED"
    try:
        yield Parent(client, run_id)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        with contextlib.suppress(Exception):  # the first error is the one to show
            _close_children(client, experiment, run_id)
            client.set_terminated(run_id, status)


def _reopened(client: Any, run_id: str | None) -> str | None:
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        client.update_run(run_id, "RUNNING")
    except MlflowException:  # another store, or deleted
        return None
    return run_id


def _created(client: Any, experiment: str, plan: SweepPlan) -> str:
    tags = {RUN: plan.name, "mlflow.note.content": f"{plan.title} of {plan.base.method}: {plan.count} trials"}
    run_id = str(client.create_run(experiment, run_name=plan.name, tags=tags).info.run_id)
    space = {key: str(domain) for key, domain in plan.space.items()}
    if plan.ablation is not None:
        space |= {key: ", ".join(_values(plan, key)) for key in _keys(plan)}
    client.log_batch(run_id, params=params_of({"config": shown(plan.base), "space": space}))
    return run_id


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
