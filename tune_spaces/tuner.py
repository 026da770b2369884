"""The Ray Tune that runs a search. Imports Ray Tune."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback

from tune_spaces.domains import Space
from tune_spaces.schedulers import build_scheduler
from tune_spaces.search import PastTrial, Search
from tune_spaces.searchers import ListSearcher, TpeSearcher
from tune_spaces.trials import EpochTensorBoard, trial_class, trial_folder_name, trial_name

if TYPE_CHECKING:
    from ray.tune import Callback, Tuner
    from ray.tune.search import Searcher

_ENVIRONMENT = {  # Ray reads all of these when a tuner runs
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a banner even when it is off
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # so that relative paths of the command line stay valid
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV: it drops all keys that the first report lacks
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it stops trials as a scheduler does: all their epochs would be lost
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a setting that no model can be built from has no score
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the caller reports errors in its own words
}

_SOME_RESOURCE = {"memory": 1}
"""One byte: Ray refuses a trial that needs nothing."""


def build_tuner(
    train: Callable[[dict[str, Any]], None],
    search: Search,
    *,
    space: Space,
    settings: Sequence[Mapping[str, Any]],
    past_trials: Sequence[PastTrial],
    resources: Mapping[str, float],
    concurrent: int,
    storage: str,
    name: str,
    max_failures: int,
    callbacks: Sequence[Callback] = (),
) -> Tuner:
    """Build the Ray Tune that trains one setting after another with ``train``.

    ``train`` reports flat numbers after each epoch, ``{"epoch": 3, "select.top1": 61.0, ...}``, and at the end STATUS
    too. One process runs many trials. TensorBoard and JSON-lines logs go to ``storage``/``name``; Ray's own state there
    is never read: a resumed search gets its earlier results as ``past_trials``.

    Args:
        train: gets an item of ``settings``; for TPE, ``{"setting": {...}}``.
        search: the kind of search, its objectives and its scheduler.
        space: the settings that TPE chooses from.
        settings: configurations ``{"setting": {...}, "seed": ...}`` to run once each, without those that ended. For
            TPE, ``{"setting": {...}}`` of trials to begin with: those that an earlier session left unfinished.
        past_trials: trials that ended in earlier sessions; TPE and the scheduler learn from them, and TPE counts them
            towards ``search.samples``.
        resources: resources of one trial; ``{"CPU": 0}`` if it starts its own workers and must leave them all CPUs.
        concurrent: trials at a time.
        storage: a folder or a URL.
        name: the subfolder of ``storage`` for this search.
        max_failures: how often a trial whose process dies is started again.
        callbacks: further Ray Tune callbacks.
    """
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # callbacks report what failed
    searcher: Searcher
    if search.kind == "tpe":
        searcher = TpeSearcher(search, space, past_trials, [dict(config["setting"]) for config in settings])
        count = search.samples - len(past_trials)
    else:
        searcher = ListSearcher(settings)
        count = len(settings)
    needs = {kind: amount for kind, amount in resources.items() if amount} or _SOME_RESOURCE
    return tune.Tuner(
        tune.with_resources(trial_class(train), needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=build_scheduler(search, past_trials),
            num_samples=count,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_folder_name,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage if "://" in storage else str(Path(storage).resolve()),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[*callbacks, JsonLoggerCallback(), EpochTensorBoard()],
            verbose=0,
        ),
    )
