"""What MLflow shows beside a run: who started it, from which sources, and that its experiment trains models."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KIND = "mlflow.experimentKind"
"""MLflow's tag for the kind of an experiment, by which its pages choose what they show."""
TRAINING = "custom_model_development"
"""The kind of experiments with runs and their metrics, as MLflow 3.17 calls it.

Where its pages have a switch between GenAI and model training, 3.17 opens what was chosen last, unless the address says
``?workflowType=machine_learning``.
"""


def source_tags() -> dict[str, str]:
    """Return MLflow's own tags for source, user and git commit; what is not known is left out."""
    tags = {"mlflow.source.name": _source_name(), "mlflow.source.type": "JOB" if _is_job() else "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    for name, arguments in (("commit", ("HEAD",)), ("branch", ("--abbrev-ref", "HEAD"))):
        if found := _git("rev-parse", *arguments):
            tags[f"mlflow.source.git.{name}"] = found
    return tags


def mark_as_training(client: Any, experiment: Any) -> None:
    """Let an experiment open as model training, unless it has a kind already."""
    if KIND not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, KIND, TRAINING)


def _source_name() -> str:
    """Return the program, as a module below the sources if it is one of them."""
    program = Path(sys.argv[0] or "python").resolve()
    root = Path(__file__).parents[2]
    return program.relative_to(root).as_posix() if program.is_relative_to(root) else program.name


def _is_job() -> bool:
    """Return whether Ray runs this program as a submitted job."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
