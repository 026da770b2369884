"""The parts that ``search.build_tuner`` gives to Ray Tune. Importing this imports Ray Tune."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable.function_trainable import wrap_function

from tune_spaces.domains import Setting, Space, decode, dimensions, sample
from tune_spaces.search import EPOCH, FINISHED, PRUNED, STATUS, Done, Search, scores

_CLEANUP_SECONDS = 120

_REPEATS = 10
"""Suggestions of settings that were tried already before an untried one is drawn."""


def kept(trainable: Callable[[dict[str, Any]], None]) -> type:
    """The function as Ray Tune's class of it, whose process waits for a trial that was stopped to clean up.

    Ray itself waits 2 s before the process's next trial, which fails if that is too short, and 0 s before its end: then
    the run of the last trial to be stopped would never be closed.
    """

    class Trial(wrap_function(trainable)):  # type: ignore[misc]  # Ray is untyped here
        def setup(self, config: dict[str, Any]) -> None:
            os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(_CLEANUP_SECONDS))  # read in this process
            self._ended = threading.Event()
            self._ended.set()  # not begun
            super().setup(config)

        def _trainable_func(self, config: dict[str, Any]) -> Any:
            self._ended.clear()
            try:
                return super()._trainable_func(config)
            finally:
                self._ended.set()

        def cleanup(self) -> None:
            try:
                super().cleanup()  # asks the function to end
            finally:
                self._ended.wait(_CLEANUP_SECONDS)

    return Trial


class _Stateless(Searcher):  # type: ignore[misc]  # Ray is untyped here
    """A searcher that Ray need not save: a sweep goes on from the records of its trials."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing."""


class Listed(_Stateless):
    """Hands out given configurations in order."""

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._left = deque(configs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # noqa: ARG002
        """The next."""
        return dict(self._left.popleft()) if self._left else str(Searcher.FINISHED)


class Tpe(_Stateless):
    """Tree-structured Parzen estimator (Bergstra et al., 2011) for one or several objectives, by Optuna's ask and tell.

    Beyond ``OptunaSearch``, it knows what earlier sessions found with several objectives too, tells what was stopped
    from what ended, and tries no setting twice, however many suggested values stand for it.
    """

    def __init__(self, search: Search, space: Space, done: Sequence[Done], first: Sequence[Setting]) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._objectives, self._space, self._seed = search.objectives, space, search.seed
        self._distributions = dimensions(space)
        self._tried: set[tuple[str, ...]] = set()
        self._asked: dict[str, optuna.Trial] = {}
        self._first = deque(first)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=min(10, 1 + search.samples // 3),
            multivariate=True,  # the first and the last layer go together
            seed=search.seed + len(done),  # else the draws of the first session would come again
        )
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if objective.mode == "max" else down for objective in search.objectives]
        self._study = optuna.create_study(sampler=sampler, directions=directions)
        for trial in done:
            self._tried.add(self._key(trial.setting))
            self._study.add_trial(self._past(trial))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """A setting that was not tried, nor is being tried; Searcher.FINISHED if there is none."""
        for _ in range(_REPEATS):
            if self._first:
                self._study.enqueue_trial(encode(self._space, self._first.popleft()))
            trial = self._study.ask(self._distributions)
            setting = decode(self._space, trial.params)
            if self._key(setting) not in self._tried:
                self._tried.add(self._key(setting))
                self._asked[trial_id] = trial
                return {"setting": dict(setting)}
            self._study.tell(trial, state=TrialState.FAIL)  # it counts once
        drawn = sample(self._space, len(self._tried) + 1, self._seed)
        untried = [setting for setting in drawn if self._key(setting) not in self._tried]
        if not untried:
            return str(Searcher.FINISHED)
        self._first.append(untried[0])
        return self.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn how a trial ended; one without a score teaches nothing."""
        trial, result = self._asked.pop(trial_id), result or {}
        state = _state("failed" if error else result.get(STATUS, PRUNED))
        values = scores(result, self._objectives)
        if values is None or state == TrialState.FAIL:
            self._study.tell(trial, state=TrialState.FAIL)
        elif state == TrialState.PRUNED:
            trial.report(values[0], int(result[EPOCH]))
            self._study.tell(trial, state=state)
        else:
            self._study.tell(trial, values)

    def _past(self, done: Done) -> optuna.trial.FrozenTrial:
        state, values = _state(done.status), scores(done.metrics, self._objectives)
        if (state == TrialState.COMPLETE and values is None) or (state == TrialState.PRUNED and not done.by_epoch):
            state = TrialState.FAIL
        return optuna.create_trial(
            state=state,
            values=values if state == TrialState.COMPLETE else None,
            params=encode(self._space, done.setting),
            distributions=self._distributions,
            intermediate_values=dict(done.by_epoch),
        )

    def _key(self, setting: Setting) -> tuple[str, ...]:
        return tuple(setting[key] for key in self._space)


def _state(status: str) -> TrialState:
    return {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(status, TrialState.FAIL)


def encode(space: Space, setting: Setting) -> dict[str, Any]:
    """Values for ``dimensions(space)`` that ``decode`` turns into this setting."""
    encoded: dict[str, Any] = {}
    for key, domain in space.items():
        found = domain.dimensions(key)
        texts = setting[key].split("-") if len(found) > 1 else [setting[key]]
        encoded |= {name: _value(found[name], text) for name, text in zip(found, texts, strict=True)}
    return encoded


def _value(distribution: BaseDistribution, text: str) -> Any:
    if isinstance(distribution, IntDistribution):
        return int(text)
    if isinstance(distribution, FloatDistribution):  # rounded to 4 digits, it may lie just outside
        return min(max(float(text), distribution.low), distribution.high)
    return text


@dataclass(frozen=True)
class _Past:
    """As much of an earlier session's trial as the rules look at."""

    trial_id: str


class _Alone:
    """As much of Ray Tune's controller as the median rule looks at: where trials wait, it would pause this one."""

    def get_live_trials(self) -> list[Any]:
        return []


class Stopping(FIFOScheduler):  # type: ignore[misc]  # Ray is untyped here
    """A rule of Ray Tune's that stops trials, shown scores of epochs only, and what earlier sessions' trials scored.

    A trial that has trained its last epoch is not stopped: there is nothing to save, and its tests would be lost. The
    report at the end, which may have no score, is no epoch's.
    """

    def __init__(self, rule: TrialScheduler, search: Search, done: Sequence[Done]) -> None:
        super().__init__()
        self._rule, self._objective, self._epochs = rule, search.objectives[0], search.epochs
        for number, trial in enumerate(done):
            past = _Past(f"earlier-{number}")
            rule.on_trial_add(_Alone(), past)
            for epoch, value in sorted(trial.by_epoch.items()):
                self.on_trial_result(None, past, {EPOCH: epoch, self._objective.metric: value})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tell the rule."""
        self._rule.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:  # noqa: ARG002
        """The rule's decision after an epoch."""
        values = scores(result, [self._objective])
        if values is None or STATUS in result or result[EPOCH] >= self._epochs:
            return str(TrialScheduler.CONTINUE)
        seen = {EPOCH: result[EPOCH], self._objective.metric: values[0]}
        said = str(self._rule.on_trial_result(_Alone(), trial, seen))
        return str(TrialScheduler.STOP) if said == TrialScheduler.PAUSE else said


class Boards(TBXLoggerCallback):  # type: ignore[misc]  # Ray is untyped here
    """TensorBoard logs by epoch; its table of hyperparameters has the setting's own names, numbers as numbers."""

    def log_trial_start(self, trial: Any) -> None:
        """Name the hyperparameters."""
        config = trial.config
        trial.evaluated_params = {key: _number(text) for key, text in config["setting"].items()}
        trial.evaluated_params |= {"seed": config["seed"]} if "seed" in config else {}
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: Mapping[str, Any]) -> None:
        """Log what the trial said, not Ray's times."""
        told = {key: value for key, value in result.items() if key not in _BOOKKEEPING}
        super().log_trial_result(iteration, trial, told | {"training_iteration": result.get(EPOCH, 0)})


_BOOKKEEPING = {
    *("iterations_since_restore", "time_since_restore", "time_this_iter_s", "timestamp", "date", "done", "config"),
    *("hostname", "node_ip", "pid", "trial_id", "experiment_tag", "checkpoint_dir_name", "should_checkpoint", EPOCH),
}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def short_name(trial: Any) -> str:
    """A trial's name in Ray's own logs."""
    return f"trial_{trial.trial_id}"


def folder_name(trial: Any) -> str:
    """A trial's folder, which is what TensorBoard calls it: ``layers=8-12,lr=0.001-1a2b3c``."""
    label = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.config["setting"].items())
    return f"{re.sub(r'[^A-Za-z0-9.=,_-]', '_', label)[:100]}-{trial.trial_id}"
