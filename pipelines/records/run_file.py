"""``run.json``: the record of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.config.plain import flatten


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")


SCHEMA = 2
"""Version of ``run.json``; raised when a field changes its meaning."""


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every number by its path; MLflow's names have no ``@``."""
    return {
        key.replace(".", "/").replace("@", ""): float(value)
        for key, value in flatten(metrics).items()
        if isinstance(value, (int, float))
    }
