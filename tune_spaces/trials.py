"""How Ray Tune runs, names and logs a trial. Imports Ray Tune."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.logger import TBXLoggerCallback
from ray.tune.trainable.function_trainable import wrap_function

from tune_spaces.search import EPOCH

_CLEANUP_SECONDS = 120

_RAY_KEYS = {
    *("iterations_since_restore", "time_since_restore", "time_this_iter_s", "timestamp", "date", "done", "config"),
    *("hostname", "node_ip", "pid", "trial_id", "experiment_tag", "checkpoint_dir_name", "should_checkpoint", EPOCH),
}
"""Keys that Ray adds to a result, and the epoch, which is the x axis."""


def trial_class(train: Callable[[dict[str, Any]], None]) -> type:
    """Wrap a function in a Ray Tune trainable whose process waits until a stopped trial has cleaned up.

    Ray itself waits 2 s before the process's next trial, which fails if that is too short, and 0 s before the process
    ends, so the run of the last stopped trial would never be closed.
    """

    class Trial(wrap_function(train)):  # type: ignore[misc]  # Ray is untyped here
        def setup(self, config: dict[str, Any]) -> None:
            # Ray reads this variable in the trial's own process.
            os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(_CLEANUP_SECONDS))
            self._ended = threading.Event()
            self._ended.set()  # a trial that has not started need not clean up
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


def trial_name(trial: Any) -> str:
    """Name a trial in Ray's own logs."""
    return f"trial_{trial.trial_id}"


def trial_folder_name(trial: Any) -> str:
    """Name a trial's folder, which is its name in TensorBoard: ``layers=8-12,lr=0.001-1a2b3c``."""
    label = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in trial.config["setting"].items())
    return f"{re.sub(r'[^A-Za-z0-9.=,_-]', '_', label)[:100]}-{trial.trial_id}"


class EpochTensorBoard(TBXLoggerCallback):  # type: ignore[misc]  # Ray is untyped here
    """TensorBoard logs by epoch, with the setting's keys as hyperparameters and numbers as numbers."""

    def log_trial_start(self, trial: Any) -> None:
        """Name the hyperparameters."""
        config = trial.config
        trial.evaluated_params = {key: _number_or_text(text) for key, text in config["setting"].items()}
        if "seed" in config:
            trial.evaluated_params["seed"] = config["seed"]
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: Mapping[str, Any]) -> None:
        """Log what the trial reported, without Ray's times."""
        reported = {key: value for key, value in result.items() if key not in _RAY_KEYS}
        super().log_trial_result(iteration, trial, reported | {"training_iteration": result.get(EPOCH, 0)})


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
