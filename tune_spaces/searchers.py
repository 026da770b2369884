"""Searchers for Ray Tune: settings in a given order, and a tree-structured Parzen estimator. Imports Ray Tune."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune_spaces.domains import Setting, Space, decode, distributions, encode, sample
from tune_spaces.search import EPOCH, FINISHED, PRUNED, STATUS, PastTrial, Search, objective_values

_MAX_REPEATS = 10
"""Suggestions of settings already tried, after which an untried setting is drawn at random."""


class _StatelessSearcher(Searcher):  # type: ignore[misc]  # Ray is untyped here
    """A searcher that Ray need not save: a sweep resumes from the records of its trials."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing."""


class ListSearcher(_StatelessSearcher):
    """A searcher that suggests the given configurations in order."""

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._remaining = deque(configs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # noqa: ARG002
        """Return the next configuration, or Searcher.FINISHED after the last."""
        return dict(self._remaining.popleft()) if self._remaining else str(Searcher.FINISHED)


class TpeSearcher(_StatelessSearcher):
    """Tree-structured Parzen estimator (Bergstra et al., 2011) for one or several objectives, on Optuna's ask and tell.

    Unlike Ray's ``OptunaSearch``, it learns from earlier sessions with several objectives too, treats a stopped trial
    differently from a finished one, and tries no setting twice, however many suggestions decode to it.

    Attributes:
        study: Optuna's study of the trials so far.
    """

    def __init__(
        self, search: Search, space: Space, past_trials: Sequence[PastTrial], first_settings: Sequence[Setting]
    ) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._objectives = search.objectives
        self._space = space
        self._seed = search.seed
        self._distributions = distributions(space)
        self._tried: set[tuple[str, ...]] = set()
        self._asked: dict[str, optuna.Trial] = {}
        self._first_settings = deque(first_settings)
        self.study = _create_study(search, len(past_trials))
        for trial in past_trials:
            self._tried.add(self._key(trial.setting))
            self.study.add_trial(self._frozen_trial(trial))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Suggest ``{"setting": ...}`` that no other trial has; return Searcher.FINISHED if there is none left."""
        for _ in range(_MAX_REPEATS):
            if self._first_settings:
                self.study.enqueue_trial(encode(self._space, self._first_settings.popleft()))
            trial = self.study.ask(self._distributions)
            setting = decode(self._space, trial.params)
            if self._key(setting) not in self._tried:
                self._tried.add(self._key(setting))
                self._asked[trial_id] = trial
                return {"setting": dict(setting)}
            self.study.tell(trial, state=TrialState.FAIL)  # so that a repeated setting has its score once
        drawn = sample(self._space, len(self._tried) + 1, self._seed)
        untried = [setting for setting in drawn if self._key(setting) not in self._tried]
        if not untried:
            return str(Searcher.FINISHED)
        self._first_settings.append(untried[0])
        return self.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn how a trial ended; a trial without scores counts as failed."""
        trial = self._asked.pop(trial_id)
        result = result or {}
        state = _optuna_state("failed" if error else result.get(STATUS, PRUNED))
        values = objective_values(result, self._objectives)
        if values is None or state == TrialState.FAIL:
            self.study.tell(trial, state=TrialState.FAIL)
        elif state == TrialState.PRUNED:
            trial.report(values[0], int(result[EPOCH]))
            self.study.tell(trial, state=state)
        else:
            self.study.tell(trial, values)

    def _frozen_trial(self, trial: PastTrial) -> optuna.trial.FrozenTrial:
        state = _optuna_state(trial.status)
        values = objective_values(trial.metrics, self._objectives)
        without_score = state == TrialState.COMPLETE and values is None
        without_epochs = state == TrialState.PRUNED and not trial.by_epoch
        if without_score or without_epochs:
            state = TrialState.FAIL
        return optuna.create_trial(
            state=state,
            values=values if state == TrialState.COMPLETE else None,
            params=encode(self._space, trial.setting),
            distributions=self._distributions,
            intermediate_values=dict(trial.by_epoch),
        )

    def _key(self, setting: Setting) -> tuple[str, ...]:
        return tuple(setting[key] for key in self._space)


def _create_study(search: Search, past_count: int) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=min(10, 1 + search.samples // 3),
        multivariate=True,  # the first and the last layer of a range belong together
        seed=search.seed + past_count,  # with the same seed, a resumed session would repeat the first one's draws
    )
    up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [up if objective.mode == "max" else down for objective in search.objectives]
    return optuna.create_study(sampler=sampler, directions=directions)


def _optuna_state(status: str) -> TrialState:
    return {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}.get(status, TrialState.FAIL)
