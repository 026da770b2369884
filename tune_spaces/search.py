"""How settings are searched, and the Ray Tune that does it: grid and random lists, TPE; ASHA and the median rule."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tune_spaces.domains import Setting, Space
from vlmodels.errors import UserError, refuse

if TYPE_CHECKING:
    from ray.tune import Callback, Tuner
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

Kind = Literal["grid", "random", "tpe"]
Scheduler = Literal["none", "asha", "median"]
Mode = Literal["max", "min"]

EPOCH, STATUS = "epoch", "status"
"""Keys of a trial's reports: each has EPOCH; the last one, and no other, has STATUS."""

FINISHED, PRUNED = "finished", "pruned"
"""The STATUS of a trial that has scores, and that of one which a scheduler has stopped."""

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output has a banner even when it is off
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of the command line stay valid
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, which would drop all keys that the first report lacks
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it stops trials like poor ones: all their epochs would be lost
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what can't be built has no score
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the sweep says it in its own words
}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A number to raise or to lower, by its dotted name: select.top1, cost.trainable."""

    metric: str
    mode: Mode = "max"

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read "select.top1" or "cost.trainable:min"; without a mode, costs are lowered and all else is raised.

        Raises:
            UserError: another mode, or no name.
        """
        metric, _, mode = text.strip().partition(":")
        mode = mode or ("min" if metric.startswith("cost.") else "max")
        if not metric or mode not in get_args(Mode):
            raise UserError(f"objective '{text}' is not of the form METRIC, METRIC:max or METRIC:min")
        return cls(metric=metric, mode=mode)  # type: ignore[arg-type]  # one of Mode's, as was just seen


@dataclass(frozen=True, kw_only=True)
class Search:
    """A way through a space.

    Attributes:
        samples: settings to try in all (random, tpe).
        objectives: the first is the one that schedulers look at.
        epochs: of a trial that is not stopped.
        grace: epochs before a trial may be stopped.
        reduction: ASHA keeps one of so many at each rung.

    Raises:
        UserError: these do not go together; one message with all problems.
    """

    kind: Kind = "grid"
    samples: int = 0
    scheduler: Scheduler = "none"
    objectives: tuple[Objective, ...]
    seed: int = 1
    epochs: int
    grace: int = 1
    reduction: int = 3

    def __post_init__(self) -> None:
        problems = []
        names = [objective.metric for objective in self.objectives]
        if not names or len(set(names)) < len(names):
            problems.append(f"a search needs one or more different objectives, not {', '.join(names) or 'none'}")
        if self.kind != "grid" and self.samples < 1:
            problems.append(f"{self.kind} needs the number of settings to try: --samples 20")
        if self.kind == "grid" and self.samples:
            problems.append("a grid tries every setting: leave out --samples, or take --search random or tpe")
        if self.scheduler != "none":
            if len(names) > 1:
                problems.append(f"{self.scheduler} stops trials by one objective, not by {len(names)}")
            if names and names[0].startswith("cost."):
                problems.append(f"{self.scheduler} stops trials by a score of each epoch; {names[0]} is none")
            if not 1 <= self.grace < self.epochs:
                problems.append(
                    f"{self.scheduler} can stop nothing: --grace {self.grace} is to be from 1 to below the "
                    f"{self.epochs} epochs of a trial"
                )
            if self.reduction < 2:
                problems.append(f"asha keeps one of 2 or more at each rung, not of {self.reduction}")
        refuse(problems)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A trial that ended in an earlier session.

    Attributes:
        metrics: its last numbers by their dotted names.
        by_epoch: the first objective after each epoch.
    """

    setting: Setting
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    by_epoch: Mapping[int, float] = field(default_factory=dict)


def build_tuner(
    trainable: Callable[[dict[str, Any]], None],
    search: Search,
    *,
    space: Space,
    settings: Sequence[Mapping[str, Any]] | None,
    done: Sequence[Done],
    resources: Mapping[str, float],
    concurrent: int,
    storage: str,
    name: str,
    max_failures: int,
    callbacks: Sequence[Callback] = (),
) -> Tuner:
    """Ray Tune for a function that trains one setting, reports each epoch's numbers and, at the end, STATUS.

    Reports are flat: ``{"epoch": 3, "select.top1": 61.0, ...}``. Processes are kept from trial to trial. A trial whose
    process dies is started again, up to ``max_failures`` times. Logs for TensorBoard and JSON lines are in
    ``storage``/``name``; Ray's own state there is never read: what ended earlier comes as ``done``.

    Args:
        trainable: gets ``{"setting": {...}, "seed": ...}``: an item of ``settings``; of TPE, ``{"setting": {...}}``.
        search: how.
        space: what TPE chooses from.
        settings: the configurations to run, each once, without those that have ended. For TPE, ``{"setting": {...}}``
            of trials to begin with: those that an earlier session left unfinished.
        done: what earlier sessions have found out, for TPE and for the scheduler. Counts towards ``search.samples``.
        resources: of one trial; ``{"CPU": 0}`` if it starts workers of its own, for which it must leave all.
        concurrent: trials at a time.
        storage: a folder or a URL.
        name: of the folder in it.
        max_failures: how often a trial that failed is tried again.
        callbacks: of the caller.
    """
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
    from ray import tune
    from ray.tune.logger import JsonLoggerCallback

    from tune_spaces import engine

    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # what failed is for callbacks to say
    needs = {kind: amount for kind, amount in resources.items() if amount} or {"memory": 1}  # one byte: not nothing
    searcher: Searcher
    if search.kind == "tpe":
        searcher = engine.Tpe(search, space, done, [dict(config["setting"]) for config in settings or ()])
        count = search.samples - len(done)
    else:
        searcher = engine.Listed(settings or ())
        count = len(settings or ())
    return tune.Tuner(
        tune.with_resources(engine.kept(trainable), needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_scheduler(search, done),
            num_samples=count,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=engine.short_name,
            trial_dirname_creator=engine.folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage if "://" in storage else str(Path(storage).resolve()),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[*callbacks, JsonLoggerCallback(), engine.Boards()],
            verbose=0,
        ),
    )


def _scheduler(search: Search, done: Sequence[Done]) -> TrialScheduler | None:
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    from tune_spaces import engine

    if search.scheduler == "none":
        return None
    objective = search.objectives[0]
    common = {"time_attr": EPOCH, "metric": objective.metric, "mode": objective.mode, "grace_period": search.grace}
    rule = (
        ASHAScheduler(**common, max_t=search.epochs, reduction_factor=search.reduction, stop_last_trials=False)
        if search.scheduler == "asha"
        else MedianStoppingRule(**common, hard_stop=False)  # else replaying a trial that went on would end in an error
    )
    return engine.Stopping(rule, search, done)


def scores(metrics: Mapping[str, Any], objectives: Sequence[Objective]) -> list[float] | None:
    """The objectives' values; None if one is missing or no finite number."""
    values = [metrics.get(objective.metric) for objective in objectives]
    found = [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return found if len(found) == len(values) else None
