"""Find a run's folder, and read what it says about predictions: the views of its scores, and its decisions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmodels.checkpoint import ADAPTER
from vlmodels.errors import UserError

_FARTHEST = 10_000
"""The largest distance of frames, and number of views, that a record may name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How the scores of a model become an answer, or "none of these".

    Attributes:
        temperature: the logits are divided by it before the softmax, so that probabilities mean what they say.
        threshold: the least probability of an answer among the trained classes; None if none was chosen.
    """

    temperature: float = 1.0
    threshold: float | None = None


def run_of(folder: str | Path) -> Path:
    """Return the run's folder itself, or that of the one run below a folder, such as a registered model's.

    Raises:
        UserError: the folder holds no adapter, or several.
    """
    folder = Path(folder)
    found = [folder / ADAPTER] if (folder / ADAPTER).is_file() else sorted(folder.rglob(ADAPTER))
    if len(found) != 1:
        content = f"there are {len(found)} models" if found else f"there is no {ADAPTER}"
        raise UserError(f"{content} in {folder}; give the folder of one run")
    return found[0].parent


def run_views(folder: Path) -> dict[str, Any]:
    """Return the views of a run's scores: ``Predictor``'s clips, crops, sampling and stride.

    They are ``scoring`` in run.json, or else clips and crops in ``data`` of config.json, of segments. Settings that
    neither file has are left out.

    Raises:
        UserError: a file is damaged.
    """
    # The keys are those of pipelines.records.run_file, which this package cannot import: it stands alone.
    record, config = _read_json(folder / "run.json"), _read_json(folder / "config.json")
    views = record.get("scoring") or config.get("data") or {}
    kinds = {"clips": int, "crops": int, "sampling": str, "stride": int}
    found = {name: views[name] for name in kinds if views.get(name)} if isinstance(views, dict) else {"views": views}
    wrong = [f"{name}={str(value)[:50]}" for name, value in found.items() if type(value) is not kinds.get(name)]
    wrong += [
        f"{name}={str(value)[:50]}"
        for name, value in found.items()
        if type(value) is int and not 0 < value <= _FARTHEST
    ]
    if wrong:
        raise UserError(f"{folder}: the run's views are damaged ({', '.join(wrong)}); copy it again")
    return found


def run_decision(folder: Path) -> Decision:
    """Return the decision that a run chose on held-out clips (``decision`` in run.json), or one without effect.

    Raises:
        UserError: the file is damaged.
    """
    # The keys are those of pipelines.records.run_file, as above.
    found = _read_json(folder / "run.json").get("decision") or {}
    if isinstance(found, dict):
        temperature, threshold = _number(found.get("temperature", 1.0)), found.get("threshold")
        if threshold is None and temperature > 0:
            return Decision(temperature)
        if temperature > 0 and 0 <= _number(threshold) <= 1:
            return Decision(temperature, _number(threshold))
    raise UserError(f"{folder}: the run's decision is damaged ({str(found)[:50]}); copy it again")


def _number(value: object) -> float:
    """Return a finite number as it is, and NaN for all else."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else math.nan  # type: ignore[arg-type]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); copy the run again") from error
    return found if isinstance(found, dict) else {}
