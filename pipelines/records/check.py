"""Whether a ``run.json`` holds what reports read of it: a record may be damaged, or changed by hand.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.summary import DIRECTIONS, RANKED, SELECTIONS

_NUMBER = (int, float)
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "group", "protocol", "dataset", "method", "selection", "finished"), (str,)),
    **dict.fromkeys(("scoring", "config", "metrics", "cost", "facts", "classes", "seconds"), (dict,)),
    **dict.fromkeys(("config.backbone", "config.method_config", "config.protocol"), (dict,)),
    **dict.fromkeys(("config.optim", "config.augment"), (dict,)),
    **dict.fromkeys(("scoring.frames", "scoring.clips", "scoring.crops", "scoring.stride"), (int,)),
    **dict.fromkeys(("seed", "facts.trainable", "config.protocol.shots"), (int,)),
    **dict.fromkeys(("preset", "config.backbone.pretrained"), (str, NoneType)),
    **dict.fromkeys(("scoring.sampling", "config.backbone.name"), (str,)),
    "history": (list,),
    "seconds.total": _NUMBER,
}
_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("facts.train_clips", "facts.select_clips", "facts.classes.train"), (int,)),
    **dict.fromkeys(("start", "facts.classes"), (dict,)),
    **dict.fromkeys(("config.start", "config.protocol.train_list"), (str, NoneType)),
    "facts.view_notes": (list,),
    "config.protocol.holdout": _NUMBER,
    **dict.fromkeys(("cost.step_seconds", "cost.train_clips_per_second"), (*_NUMBER, NoneType)),
    **dict.fromkeys(("cost.scored_views_per_second", "cost.peak_memory_mb", "cost.gmacs_video"), (*_NUMBER, NoneType)),
}
_COUNTS = {"n_listed": (int,), "n_scored": (int,)}
_PROBED = ("shuffled", "reversed", "single")
_MISSING = object()


def problem(record: Mapping[str, Any]) -> str:
    """The first thing that is missing or of another kind, in words; "" for a sound record."""
    return next(_problems(record), "")


def _problems(record: Mapping[str, Any]) -> Iterator[str]:
    yield from _unlike(record, _KINDS)
    yield from _unlike(record, _OPTIONAL, needed=False)
    for key, known in (("protocol", PROTOCOLS), ("selection", SELECTIONS)):
        if record[key] not in known:
            yield f"its {key} is '{record[key]}', none of {', '.join(known)}"
    if not record["classes"]:
        yield "it has no test set"
    if record["protocol"] == "b2n" and set(record["classes"]) != {"base", "novel"}:
        yield "its test sets are not base and novel"
    for name, classes in record["classes"].items():
        if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
            yield f"classes.{name} is no list of names"
        if not isinstance(record["metrics"].get(name), dict):
            yield f"metrics.{name} is missing"
        yield from (f"metrics.{name}.{said}" for said in _unsound(record["metrics"][name], record["protocol"]))


def _unsound(metrics: Mapping[str, Any], protocol: str) -> Iterator[str]:
    """What a test set's metrics lack."""
    ranks = {f"{way}.{rank}": _NUMBER for way in DIRECTIONS for rank in RANKED}
    yield from _unlike(metrics, _COUNTS)
    yield from _unlike(metrics, ranks if protocol == "retrieval" else {"top1": _NUMBER, "top5": _NUMBER})
    yield from _unlike(metrics, {"chance": _NUMBER}, needed=False)
    if "probe" in metrics:
        yield from _unlike(metrics, {f"probe.{order}.top1": _NUMBER for order in _PROBED})


def _unlike(values: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], *, needed: bool = True) -> Iterator[str]:
    for path, kind in kinds.items():
        value = _at(values, path)
        if value is _MISSING:
            yield from [f"{path} is missing"] if needed else []
        elif not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            yield f"{path} is {type(value).__name__}, not {' or '.join(one.__name__ for one in kind)}"


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key, _MISSING) if isinstance(values, dict) else _MISSING
    return values
