"""The record that a trial leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.sweeps.candidates import Candidate

RECORD = "record"
"""Key of the whole record in a trial's last report; its status and numbers stand beside it, for the search."""


def blank(candidate: Candidate) -> dict[str, Any]:
    """The record of a trial of which nothing is known yet."""
    return {
        "id": candidate.id,
        "label": candidate.label,
        "setting": dict(candidate.setting),
        "seed": candidate.seed,
        "status": "failed",
        "message": "",
        "run": "",
        "epochs": 0,
        "seconds": 0.0,
        "failures": 0,
        "history": [],
        "metrics": {},
        "cost": {},
        "tracking": {"run_id": None},
    }


def epoch_numbers(epoch: Mapping[str, float]) -> dict[str, float]:
    """An epoch's numbers as objectives name them: ``select_top1`` is select.top1."""
    renamed = {
        name.replace("select_", "select.") if name.startswith("select_") else name: value
        for name, value in epoch.items()
    }
    return renamed | {"epoch": int(epoch["epoch"])}


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a record's metrics and cost by its dotted name."""
    from pipelines.config.plain import flatten

    flat = flatten({**record["metrics"], "cost": record["cost"]})
    return {key: float(value) for key, value in flat.items() if isinstance(value, (int, float))}
