"""Running a sweep's trials on Ray Tune, and keeping what each comes to as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from pipelines.cluster.capacity import can_grow, most_places
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import release_on_error
from pipelines.records.home import Home
from pipelines.runs.launch import resources_of_worker
from pipelines.storage.place import SCRATCH
from pipelines.sweeps.folder import STARTED, STATUS, SweepFolder, has_ended, runs_at
from pipelines.sweeps.records import RECORD, blank, epoch_numbers, numbers
from pipelines.sweeps.trial import Task, trainable
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import TrainConfig
    from pipelines.sweeps.plan import SweepPlan
    from tune_spaces.search import PastTrial


AT_FIRST = 8
"""Trials side by side on a cluster that grows, where nobody says how many."""
MAX_FAILURES = 2
"""How often a trial whose process was lost is taken up again."""


def run_trials(
    plan: SweepPlan, folder: SweepFolder, *, parent: str | None, concurrent: int, say: Callable[[str], None] = print
) -> bool:
    """Run the trials that have no record yet; returns whether all have one at the end.

    Raises:
        UserError: one trial needs more than the cluster has, or a machine of it cannot run any.
    """
    import ray

    from tune_spaces.tuner import build_tuner

    ended = folder.ended()
    settings = _left(plan, folder)
    if ended:
        say(f"{len(ended)} of {plan.count} trials ended in an earlier session and are not repeated")
    if _whole(plan, folder):
        return True
    base = replace(plan.base, out=runs_at(plan.base.out, plan.name))
    for note in check_cluster(replace(plan.first.config, out=base.out), data=plan.first.data):
        say(note)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    grows = can_grow(len(nodes))
    limit = most_places(base.scale, nodes)
    coming = plan.count if limit is None else min(plan.count, limit // base.scale.workers)
    beside = at_a_time(base, ray.cluster_resources(), concurrent, coming=coming if grows else 0)
    if grows:
        say(f"up to {beside} trials at a time (--concurrent): the autoscaler may start machines for them")
    task = Task(base, parent)
    objective = plan.search.objectives[0].metric
    tuner = build_tuner(
        trainable(task),
        plan.search,
        space=plan.space,
        settings=settings,
        past_trials=[_done(record, objective) for record in ended],
        resources=_resources(base),
        concurrent=beside,
        storage=str(folder.path),
        name="tune",
        max_failures=MAX_FAILURES,
        callbacks=[Keeper(task, folder, plan.count, objective, say)],
    )
    with release_on_error():
        tuner.fit()
    whole = _whole(plan, folder)
    if whole:
        _clear(base)
    return whole


def _whole(plan: SweepPlan, folder: SweepFolder) -> bool:
    return len(folder.ended()) >= plan.count if plan.candidates is None else not _left(plan, folder)


def _clear(base: TrainConfig) -> None:
    """Drop what trials left to go on with that diverged, or were stopped as their session was cut off."""
    home = Home.at(base.out)
    with contextlib.suppress(OSError):  # a process may still be giving up its own
        home.filesystem.delete_dir_contents(f"{home.root}/{SCRATCH}")


def _left(plan: SweepPlan, folder: SweepFolder) -> list[dict[str, Any]]:
    """Trials to run; of a searcher's, those that it had suggested and that were cut off."""
    if plan.candidates is None:
        return [{"setting": record["setting"]} for record in folder.unfinished()]
    ended = {record["id"] for record in folder.ended()}
    return [{"setting": dict(c.setting), "seed": c.seed} for c in plan.candidates if c.id not in ended]


def _done(record: Mapping[str, Any], objective: str) -> PastTrial:
    from tune_spaces.search import PastTrial

    by_epoch = {int(row["epoch"]): epoch_numbers(row).get(objective) for row in record["history"]}
    known = {epoch: value for epoch, value in by_epoch.items() if value is not None}
    return PastTrial(setting=record["setting"], status=record[STATUS], metrics=numbers(record), by_epoch=known)


def _resources(config: TrainConfig) -> dict[str, float]:
    """What a trial itself takes: all that its one worker needs, or nothing where workers are started beside it."""
    return resources_of_worker(config) if config.scale.workers == 1 else {"CPU": 0}


def at_a_time(config: TrainConfig, cluster: Mapping[str, float], wanted: int, *, coming: int = 0) -> int:
    """How many trials can run side by side; ``wanted=0``: as many as fit.

    Where machines may still come, what is there now is no limit: ``coming`` trials may find room (all of the sweep, or
    as many as the autoscaler's limits allow, since asked for more it may start nothing), and unless more fit already no
    more than ``AT_FIRST`` of them are begun unasked.

    Raises:
        UserError: not even one, and no machines may come.
    """
    needs = {kind: config.scale.workers * amount for kind, amount in resources_of_worker(config).items()}
    fit = min(int(cluster.get(kind, 0) / amount + 1e-6) for kind, amount in needs.items())
    if coming:
        return min(wanted, max(fit, coming)) if wanted else max(fit, min(coming, AT_FIRST))
    if not fit:
        said = ", ".join(f"{amount:g} {kind}s of {cluster.get(kind, 0):g}" for kind, amount in needs.items())
        raise UserError(
            f"a trial of {config.scale.workers} workers needs {said}: set --workers or scale.cpus_per_worker lower, or "
            "add nodes"
        )
    return min(fit, wanted) if wanted else fit


class Keeper(Callback):
    """Writes a trial's record when it ends, and says how it went."""

    def __init__(self, task: Task, folder: SweepFolder, count: int, objective: str, say: Callable[[str], None]) -> None:
        self._task, self._folder, self._count, self._objective, self._say = task, folder, count, objective, say
        self._ended = len(folder.ended())
        self._before, self._started = self._ended, time.monotonic()
        self._running: dict[str, dict[str, Any]] = {}  # records by Ray's name of the trial
        self._kept: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """What Ray Tune pickles, and nobody reads: without ``print``, which Ray replaces and then cannot pickle."""
        return self.__dict__ | {"_say": None}

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        """Note that the trial is on its way, with what an earlier start of it told; a later one begins with that."""
        record = blank(self._task.candidate(trial.config)) | {STATUS: STARTED}
        known = self._folder.trial(record["id"]) or {}
        record |= {key: known[key] for key in ("failures", "history", "epochs", "metrics") if key in known}
        self._running[trial.trial_id] = record
        self._folder.write_trial(record)

    def on_trial_result(self, *, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        """Note an epoch, or the record that ends the trial."""
        running = self._running[trial.trial_id]
        if RECORD in result:
            record = json.loads(result[RECORD]) | {"failures": running["failures"]}
            if not record["history"]:  # of a trial that diverged, what was heard before
                record |= {key: running[key] for key in ("history", "epochs")}
            self._keep(trial, record)
        elif "loss" in result:
            row = {"epoch": float(result["epoch"])}
            row |= {key: value for key, value in result.items() if key in ("loss", "train_top1", "lr")}
            chosen_by = {key[7:]: value for key, value in result.items() if key.startswith("select.")}
            row |= {f"select_{key}": value for key, value in chosen_by.items()}
            before = [known for known in running["history"] if known["epoch"] < row["epoch"]]
            running |= {"history": [*before, row], "epochs": int(row["epoch"]), "metrics": {"select": chosen_by}}
            running["cost"] = {"trainable": int(result["cost.trainable"])}
            running["seconds"] = float(result.get("time_total_s", 0.0))
            self._folder.write_trial(running)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        """A trial that left no record was stopped by the scheduler."""
        if trial.trial_id not in self._kept:
            self._keep(trial, self._running[trial.trial_id] | {STATUS: "pruned", "message": "stopped by the scheduler"})

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        """A trial that failed too often for this session; the next tries it again, once."""
        said = _last_line(Path(trial.error_file)) if trial.error_file else ""
        said = said or "its process was lost again and again"
        running = self._running[trial.trial_id]
        self._keep(trial, running | {STATUS: "failed", "message": said, "failures": running["failures"] + 1})

    def _keep(self, trial: Any, record: dict[str, Any]) -> None:
        self._kept.add(trial.trial_id)
        self._folder.write_trial(record)
        self._ended += has_ended(record)
        self._say(f"trial {self._ended}/{self._count}  {record['label']}  {self._told(record)}{self._time_left()}")

    def _told(self, record: Mapping[str, Any]) -> str:
        if record[STATUS] in ("invalid", "diverged", "failed"):
            return f"{record[STATUS]}: {record['message'][:160]}"
        value = numbers(record).get(self._objective)
        said = f"{self._objective} {value:.1f}" if value is not None else "no score"
        early = f", stopped after epoch {record['epochs']}" if record[STATUS] == "pruned" else ""
        return f"{said}{early}, {record['seconds']:.0f} s"

    def _time_left(self) -> str:
        ended = self._ended - self._before
        left = self._count - self._ended
        if not ended or not left:
            return ""
        return f"  ({(time.monotonic() - self._started) / ended * left:.0f} s left)"


def _last_line(path: Path) -> str:
    """What a traceback ends with; "" if there is none."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
