"""Run a sweep's trials on Ray Tune, and keep each one's record as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from pipelines.cluster.capacity import can_grow, most_places, resources_of_worker
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import release_after
from pipelines.cluster.view import CONNECTED, ClusterView
from pipelines.config.schema import TrainConfig
from pipelines.records.home import Home
from pipelines.storage.place import SCRATCH
from pipelines.sweeps.folder import SweepFolder, runs_at
from pipelines.sweeps.plan import SweepPlan
from pipelines.sweeps.records import RECORD, STARTED, TrialRecord, epoch_numbers, from_json
from pipelines.sweeps.trial import SharedSettings, trainable
from tune_spaces.search import PastTrial
from tune_spaces.tuner import build_tuner
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from ray.tune import Tuner

AT_FIRST = 8
"""Trials side by side on a cluster that grows, where the user does not say how many."""

MAX_FAILURES = 2
"""How often a trial whose process was lost is started again."""

Trainable = Callable[[SharedSettings], Callable[[dict[str, Any]], None]]


def run_trials(
    plan: SweepPlan,
    folder: SweepFolder,
    *,
    sweep_run_id: str | None,
    concurrent: int,
    say: Callable[[str], None] = print,
    trainable: Trainable = trainable,
    max_failures: int = MAX_FAILURES,
    cluster: ClusterView = CONNECTED,
    check: Callable[..., Sequence[str]] = check_cluster,
    build_tuner: Callable[..., Tuner] = build_tuner,
) -> bool:
    """Run the trials that have not ended yet; return whether all have at the end.

    Args:
        plan: the sweep.
        folder: where the trials' records are.
        sweep_run_id: the sweep's MLflow run; None if it has none.
        concurrent: trials at a time; 0 for as many as fit.
        say: gets lines for the user.
        trainable: makes the function that Ray Tune calls for each trial.
        max_failures: how often a trial whose process was lost is started again.
        cluster: what Ray shows of the machines.
        check: compares them; takes what ``check_cluster`` takes.
        build_tuner: builds the Ray Tune; takes what ``tune_spaces.tuner.build_tuner`` takes.

    Raises:
        UserError: one trial needs more than the cluster has, or a machine of it cannot run any.
    """
    ended = folder.ended()
    if ended:
        say(f"{len(ended)} of {plan.count} trials ended in an earlier session and are not repeated")
    if all_ended(plan, folder):
        return True
    base = replace(plan.base, out=runs_at(plan.base.out, plan.name))
    for note in check(replace(plan.first.config, out=base.out), data=plan.first.data, cluster=cluster):
        say(note)
    shared = SharedSettings(base, sweep_run_id)
    objective = plan.search.objectives[0].metric
    tuner = build_tuner(
        trainable(shared),
        plan.search,
        space=plan.space,
        settings=trials_to_run(plan, folder),
        past_trials=[_past_trial(record, objective) for record in ended],
        resources=_resources_of_trial(base),
        concurrent=_fitting_trials(base, cluster, concurrent, plan.count, say),
        storage=str(folder.path),
        name="tune",
        max_failures=max_failures,
        callbacks=[TrialRecorder(shared, folder, plan.count, objective, say)],
    )
    with release_after():
        tuner.fit()
    complete = all_ended(plan, folder)
    if complete:
        _delete_scratch(base)
    return complete


def all_ended(plan: SweepPlan, folder: SweepFolder) -> bool:
    """Return whether no trial of the sweep is to be run any more."""
    return len(folder.ended()) >= plan.count if plan.candidates is None else not trials_to_run(plan, folder)


def trials_to_run(plan: SweepPlan, folder: SweepFolder) -> list[dict[str, Any]]:
    """Return Ray Tune's configurations of the trials to run; of a searcher, those it suggested that were cut off."""
    if plan.candidates is None:
        return [{"setting": record.setting} for record in folder.unfinished()]
    ended = {record.id for record in folder.ended()}
    return [{"setting": dict(c.setting), "seed": c.seed} for c in plan.candidates if c.id not in ended]


def _past_trial(record: TrialRecord, objective: str) -> PastTrial:
    by_epoch = {int(row["epoch"]): epoch_numbers(row).get(objective) for row in record.history}
    known = {epoch: value for epoch, value in by_epoch.items() if value is not None}
    return PastTrial(setting=record.setting, status=record.status, metrics=record.numbers(), by_epoch=known)


def _resources_of_trial(config: TrainConfig) -> dict[str, float]:
    """Return all that a trial's one worker needs, or nothing where the trial starts several workers of its own."""
    return resources_of_worker(config.scale) if config.scale.workers == 1 else {"CPU": 0}


def _fitting_trials(
    config: TrainConfig, cluster: ClusterView, wanted: int, count: int, say: Callable[[str], None]
) -> int:
    nodes = cluster.nodes()
    if not can_grow(len(nodes), cluster=cluster):
        return at_a_time(config, cluster.total(), wanted)
    limit = most_places(config.scale, nodes, cluster=cluster)
    coming = count if limit is None else min(count, limit // config.scale.workers)
    several = at_a_time(config, cluster.total(), wanted, coming=coming)
    say(f"up to {several} trials at a time (--concurrent): the autoscaler may start machines for them")
    return several


def at_a_time(config: TrainConfig, cluster: Mapping[str, float], wanted: int, *, coming: int = 0) -> int:
    """Return how many trials can run side by side; ``wanted=0``: as many as fit.

    Where machines may still come, what is there now is no limit: ``coming`` trials may find room (all of the sweep, or
    as many as the autoscaler's limits allow, since asked for more it may start nothing). Unless more fit already, at
    most ``AT_FIRST`` of them begin where the user does not say how many.

    Raises:
        UserError: not even one, and no machines may come.
    """
    needs = {kind: config.scale.workers * amount for kind, amount in resources_of_worker(config.scale).items()}
    fit = min(int(cluster.get(kind, 0) / amount + 1e-6) for kind, amount in needs.items())
    if coming:
        return min(wanted, max(fit, coming)) if wanted else max(fit, min(coming, AT_FIRST))
    if not fit:
        amounts = ", ".join(f"{amount:g} {kind}s of {cluster.get(kind, 0):g}" for kind, amount in needs.items())
        raise UserError(
            f"a trial of {config.scale.workers} workers needs {amounts}: set --workers or scale.cpus_per_worker lower, "
            "or add nodes"
        )
    return min(fit, wanted) if wanted else fit


def _delete_scratch(base: TrainConfig) -> None:
    """Delete the checkpoints of trials that diverged, or were stopped as their session was cut off."""
    home = Home.at(base.out)
    with contextlib.suppress(OSError):  # a process may still be deleting its own
        home.filesystem.delete_dir_contents(f"{home.root}/{SCRATCH}")


class TrialRecorder(Callback):
    """Writes a trial's record when it starts, after each epoch and when it ends, and prints how it ended."""

    def __init__(
        self, shared: SharedSettings, folder: SweepFolder, count: int, objective: str, say: Callable[[str], None]
    ) -> None:
        self._shared = shared
        self._folder = folder
        self._count = count
        self._objective = objective
        self._say = say
        self._ended = len(folder.ended())
        self._ended_before = self._ended
        self._started = time.monotonic()
        self._running: dict[str, TrialRecord] = {}  # by Ray's name of the trial
        self._recorded: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Return what Ray Tune pickles and never reads: without ``print``, which Ray replaces and cannot pickle."""
        return self.__dict__ | {"_say": None}

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Record that the trial is running, with what an earlier start of it reported; a later one begins with that."""
        record = replace(TrialRecord.of(self._shared.candidate(trial.config)), status=STARTED)
        known = self._folder.trial(record.id)
        if known is not None:
            record = replace(
                record, failures=known.failures, history=known.history, epochs=known.epochs, metrics=known.metrics
            )
        self._running[trial.trial_id] = record
        self._folder.write_trial(record)

    def on_trial_result(self, *, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        """Record an epoch, or take over the record that ends the trial."""
        running = self._running[trial.trial_id]
        if RECORD in result:
            record = replace(from_json(TrialRecord, json.loads(result[RECORD])), failures=running.failures)
            if not record.history:  # it diverged, and only the reports of its epochs are known
                record = replace(record, history=running.history, epochs=running.epochs)
            self._finish(trial, record)
        elif "loss" in result:
            self._running[trial.trial_id] = _with_epoch(running, result)
            self._folder.write_trial(self._running[trial.trial_id])

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that left no record: the scheduler stopped it."""
        if trial.trial_id not in self._recorded:
            running = self._running[trial.trial_id]
            self._finish(trial, replace(running, status="pruned", message="stopped by the scheduler"))

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """Record a trial that failed too often for this session; the next session tries it again, once."""
        message = _last_line(Path(trial.error_file)) if trial.error_file else ""
        running = self._running[trial.trial_id]
        failed = replace(
            running,
            status="failed",
            message=message or "its process was lost again and again",
            failures=running.failures + 1,
        )
        self._finish(trial, failed)

    def _finish(self, trial: Any, record: TrialRecord) -> None:
        self._recorded.add(trial.trial_id)
        self._folder.write_trial(record)
        self._ended += record.ended
        self._say(f"trial {self._ended}/{self._count}  {record.label}  {self._outcome(record)}{self._time_left()}")

    def _outcome(self, record: TrialRecord) -> str:
        if record.status in ("invalid", "diverged", "failed"):
            return f"{record.status}: {record.message[:160]}"
        value = record.numbers().get(self._objective)
        score = "no score" if value is None else f"{self._objective} {value:.1f}"
        early = f", stopped after epoch {record.epochs}" if record.status == "pruned" else ""
        return f"{score}{early}, {record.seconds:.0f} s"

    def _time_left(self) -> str:
        ended = self._ended - self._ended_before
        left = self._count - self._ended
        if not ended or not left:
            return ""
        return f"  ({(time.monotonic() - self._started) / ended * left:.0f} s left)"


def _with_epoch(record: TrialRecord, result: Mapping[str, Any]) -> TrialRecord:
    """Return the record with an epoch's report as the last line of its history."""
    selected = {key.removeprefix("select."): value for key, value in result.items() if key.startswith("select.")}
    row = {"epoch": float(result["epoch"])}
    row |= {key: value for key, value in result.items() if key in ("loss", "train_top1", "lr")}
    row |= {f"select_{key}": value for key, value in selected.items()}
    earlier = [known for known in record.history if known["epoch"] < row["epoch"]]
    return replace(
        record,
        history=(*earlier, row),
        epochs=int(row["epoch"]),
        metrics={"select": selected},
        cost={"trainable": int(result["cost.trainable"])},
        seconds=float(result.get("time_total_s", 0.0)),
    )


def _last_line(path: Path) -> str:
    """Return what a traceback ends with; "" if there is none."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
