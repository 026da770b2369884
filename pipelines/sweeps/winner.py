"""The winner of a sweep: chosen on held-out training clips, trained again on all of them, tested, registered."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.config.plain import digest_of
from pipelines.sweeps.candidates import final, overridden
from pipelines.sweeps.folder import STATUS, SweepFolder
from pipelines.sweeps.plan import SweepPlan
from pipelines.sweeps.records import numbers
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.runs.record import RunResult
    from pipelines.sweeps.tracking import Parent


@dataclass(frozen=True)
class Winner:
    """The setting that is best by ``objective``, the mean over its trials."""

    label: str
    setting: Mapping[str, str]
    trials: tuple[str, ...]
    objective: str
    value: float


def choose(plan: SweepPlan, records: Sequence[Mapping[str, Any]]) -> Winner | None:
    """The best setting of those whose trials all finished; of equals the one with the fewest trainable parameters.

    Of several objectives the first decides; the report shows the front of all.
    """
    objective = plan.search.objectives[0]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(digest_of(record["setting"]), []).append(record)
    sign = 1 if objective.mode == "max" else -1
    best: tuple[float, float] | None = None
    winner = None
    for group in groups.values():
        if len(group) < len(plan.seeds) or any(record[STATUS] != "finished" for record in group):
            continue
        values = [numbers(record).get(objective.metric, math.nan) for record in group]
        mean = statistics.fmean(values)
        reached = (sign * mean, -float(group[0]["cost"].get("trainable", 0)))
        if math.isfinite(mean) and (best is None or reached > best):
            best = reached
            trials = tuple(record["id"] for record in group)
            winner = Winner(group[0]["label"], group[0]["setting"], trials, objective.metric, mean)
    return winner


def crown(
    plan: SweepPlan,
    winner: Winner,
    folder: SweepFolder,
    *,
    seeds: Sequence[int],
    register: str | None,
    parent: Parent,
    fresh: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Train the winner with each seed as a child of the sweep's run, score it on test, register a seed's model.

    Held-out clips go back into training, but where they choose the epoch (``selection=select``). A seed that diverges
    is told and left out; None if all do. What an earlier session has registered is not registered again: the alias may
    have moved on.

    Raises:
        UserError: the winner cannot be trained on all training clips.
    """
    from pipelines.planning.plan import plan_run
    from pipelines.runs.run import run_training

    setting = overridden(plan.base, winner.setting)
    plans = [plan_run(final(setting, seed)) for seed in seeds]
    results = []
    for one in plans:
        try:
            with parent.child(one.name):
                results.append(run_training(one, fresh=fresh, say=say))
        except DivergedError as error:
            say(f"the winner diverged with seed {one.config.seed} and is left out of its scores: {error}")
    if not results:
        return None
    runs = [_told(result) for result in results]
    known = folder.winner() or {}
    before = known.get("registered") if known.get("runs") == runs else None
    if before is not None and register is not None and before.startswith(f"models:/{register}@"):
        registered: str | None = before
    else:
        registered = _register(results, plan, register, say)
    record = {
        "label": winner.label,
        "setting": dict(winner.setting),
        "trials": list(winner.trials),
        "chosen_on": winner.objective,
        "chosen_value": winner.value,
        "runs": runs,
        "registered": registered,
    }
    folder.write_winner(record)
    return record


def _told(result: RunResult) -> dict[str, Any]:
    record = result.record
    return {
        "name": record.name,
        "run_dir": result.run_dir,
        "seed": record.seed,
        "metrics": record.metrics.to_json(),
        "cost": record.cost.to_json(),
    }


def _register(
    results: Sequence[RunResult], plan: SweepPlan, name: str | None, say: Callable[[str], None]
) -> str | None:
    """Register the seed that is best on held-out clips, or the first where none are held out: never chosen on test."""
    from pipelines.runs.registry import register_run

    if name is None:
        return None
    best = max(results, key=lambda result: result.metrics.select.top1)
    config = replace(plan.base, tracking=replace(plan.base.tracking, register=name))
    try:
        return register_run(best, config, say=say)
    except UserError as error:
        say(f"the winner is not in the registry: {error}")
        return None
