"""The winner of a sweep: chosen on held-out training clips, trained again on all of them, tested, registered."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.config.plain import digest_of
from pipelines.config.schema import TrainConfig
from pipelines.planning.plan import Plan, plan_run
from pipelines.runs.record import RunResult
from pipelines.runs.registry import register_run
from pipelines.runs.run import run_plans
from pipelines.sweeps.candidates import overridden, winner_config
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.plan import SweepPlan
from pipelines.sweeps.records import TrialRecord, WinnerRecord, WinnerRun
from pipelines.sweeps.tracking import SweepRun
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError


@dataclass(frozen=True)
class Winner:
    """The setting that is best by ``objective``; ``value`` is the mean over its ``trials`` (ids)."""

    label: str
    setting: Mapping[str, str]
    trials: tuple[str, ...]
    objective: str
    value: float


def choose_winner(plan: SweepPlan, records: Sequence[TrialRecord]) -> Winner | None:
    """Return the best setting of those whose trials all finished; of equals the one with the fewest parameters.

    Of several objectives the first decides; the report shows the front of all. None if no setting has a finite score.
    """
    objective = plan.search.objectives[0]
    sign = 1 if objective.mode == "max" else -1
    best: tuple[float, float] | None = None
    winner = None
    for group in _by_setting(records):
        if len(group) < len(plan.seeds) or not all(record.finished for record in group):
            continue
        mean = statistics.fmean(record.numbers().get(objective.metric, math.nan) for record in group)
        first = group[0]
        score = (sign * mean, -float(first.cost.get("trainable", 0)))
        if math.isfinite(mean) and (best is None or score > best):
            best = score
            winner = Winner(first.label, first.setting, tuple(r.id for r in group), objective.metric, mean)
    return winner


def _by_setting(records: Sequence[TrialRecord]) -> Iterator[list[TrialRecord]]:
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(digest_of(record.setting), []).append(record)
    yield from groups.values()


def train_winner(
    plan: SweepPlan,
    winner: Winner,
    folder: SweepFolder,
    *,
    seeds: Sequence[int],
    register: str | None,
    sweep_run: SweepRun,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    plan_one: Callable[[TrainConfig], Plan] = plan_run,
    train: Callable[..., Sequence[RunResult | Exception]] = run_plans,
    register_one: Callable[..., str] = register_run,
) -> WinnerRecord | None:
    """Train the winner with each seed as a child of the sweep's run, score it on test, register a seed's model.

    Held-out clips go back into training, unless they choose the epoch (``selection=select``). A seed that diverges is
    reported and left out; None if all do. What an earlier session has registered is not registered again: the alias
    may point to another model by now.

    Args:
        plan: the sweep.
        winner: its best setting.
        folder: where winner.json goes.
        seeds: to train with.
        register: the name to register the model under; None for no registration.
        sweep_run: the sweep's MLflow run.
        fresh: whether finished runs are trained again.
        say: gets lines for the user.
        plan_one: plans a run.
        train: trains plans; takes what ``run_plans`` takes.
        register_one: registers a run; takes what ``register_run`` takes.

    Raises:
        UserError: the winner cannot be trained on all training clips.
    """
    setting = overridden(plan.base, winner.setting)
    plans = [plan_one(winner_config(setting, seed)) for seed in seeds]
    results = list(_results(plans, sweep_run, fresh=fresh, say=say, train=train))
    if not results:
        return None
    runs = tuple(map(_winner_run, results))
    registered = _registered_before(folder.winner(), runs, register)
    if registered is None and register is not None:
        registered = _register_best(results, plan, register, say, register_one)
    record = WinnerRecord(
        label=winner.label,
        setting=dict(winner.setting),
        trials=winner.trials,
        chosen_on=winner.objective,
        chosen_value=winner.value,
        runs=runs,
        registered=registered,
    )
    folder.write_winner(record)
    return record


def _results(
    plans: Sequence[Plan],
    sweep_run: SweepRun,
    *,
    fresh: bool,
    say: Callable[[str], None],
    train: Callable[..., Sequence[RunResult | Exception]],
) -> Iterator[RunResult]:
    """Yield the result of each plan that does not diverge."""
    with contextlib.ExitStack() as children:
        for plan in plans:
            children.enter_context(sweep_run.child(plan.name))
        ends = train(plans, fresh=fresh, say=say)
    for plan, end in zip(plans, ends, strict=True):
        if isinstance(end, DivergedError):
            say(f"the winner diverged with seed {plan.config.seed} and is left out of its scores: {end}")
        elif isinstance(end, Exception):
            raise end
        else:
            yield end


def _winner_run(result: RunResult) -> WinnerRun:
    record = result.record
    return WinnerRun(
        name=record.name,
        run_dir=result.run_dir,
        seed=record.seed,
        metrics=record.metrics.to_json(),
        cost=record.cost.to_json(),
    )


def _registered_before(known: WinnerRecord | None, runs: Sequence[WinnerRun], name: str | None) -> str | None:
    """Return the model that an earlier session registered under this name from the same runs; None without one."""
    if known is None or known.registered is None or name is None or known.runs != tuple(runs):
        return None
    return known.registered if known.registered.startswith((f"models:/{name}@", f"models:/{name}/")) else None


def _register_best(
    results: Sequence[RunResult],
    plan: SweepPlan,
    name: str,
    say: Callable[[str], None],
    register_one: Callable[..., str],
) -> str | None:
    """Register the seed that is best on held-out clips, or the first where none are held out: never chosen on test."""
    best = max(results, key=lambda result: result.metrics.select.top1)
    config = replace(plan.base, tracking=replace(plan.base.tracking, register=name))
    try:
        return register_one(best, config, say=say)
    except UserError as error:
        say(f"the winner is not in the registry: {error}")
        return None
