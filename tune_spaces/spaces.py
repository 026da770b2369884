"""Spaces derived from the metadata of a method's ``Config``, and the papers' ablations for a backbone's towers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tune_spaces.domains import Choice, Domain, Integers, Layers, LogUniform, Space, Uniform, written
from tune_spaces.insertion import PAPER_DEPTH, scaled
from tune_spaces.tables import Ablation, Row, read_ablation, table_names
from vlmodels import methods
from vlmodels.errors import UserError, nearest, refuse

__all__ = [
    "Ablation",
    "Depths",
    "Row",
    "ablation",
    "ablations",
    "fitted",
    "insertion_space",
    "read_ablation",
    "space_of",
]

Depths = Mapping[str, int]  # layers of the towers "video" and "text"

_PUBLISHED = Path(__file__).parent / "published"


def space_of(
    config_class: type[Any], *, depths: Depths, prefix: str = "method.", names: Iterable[str] | None = None
) -> Space:
    """What a search tries of a method: the fields of its ``Config`` that say so.

    Args:
        config_class: a method's ``Config``; its fields' metadata are as ``vlmodels.methods.base.setting`` makes them.
        depths: the towers' layers.
        prefix: what stands before a field's name in a key.
        names: these fields only.

    Raises:
        UserError: there are none, or of those named some say nothing; tells all.
    """
    found = {f.name: _domain(f.metadata["tune"], depths) for f in fields(config_class) if f.metadata.get("tune")}
    chosen = list(found if names is None else names)
    if not chosen:
        raise UserError(f"{_owner(config_class)} has no values to try; give some with --grid {prefix}NAME=a,b,c")
    refuse(
        [
            f"{_owner(config_class)} has no values to try for '{name}'{nearest(name, found)}, but for "
            f"{', '.join(found) or 'nothing'}; give some with --grid {prefix}{name}=a,b,c"
            for name in chosen
            if name not in found
        ]
    )
    return {prefix + name: found[name] for name in chosen}


def insertion_space(config_class: type[Any], *, depths: Depths, prefix: str = "method.", apart: bool = False) -> Space:
    """Where a method goes: its ranges and numbers of layers, of both towers alike, or ``apart`` of each tower.

    Raises:
        UserError: the method has none.
    """
    found = {}
    for f in fields(config_class):
        tune = (apart and f.metadata.get("tune_apart")) or f.metadata.get("tune")
        if tune and _tower(tune):
            found[prefix + f.name] = _domain(tune, depths)
    if not found:
        raise UserError(f"{_owner(config_class)} has no layers to choose; search its other settings")
    return found


def ablations(method: str) -> list[str]:
    """Names of a method's published ablations.

    Raises:
        UserError: no such method.
    """
    known = methods.names()
    if method not in known:
        raise UserError(f"unknown method '{method}'{nearest(method, known)}; there are {', '.join(known)}")
    path = _PUBLISHED / f"{method}.toml"
    return table_names(path) if path.exists() else []


def ablation(method: str, name: str, depths: Depths) -> Ablation:
    """A published ablation, for towers of these depths.

    Ranges and numbers of layers, of 12 in the papers, are scaled; ``notes`` say what became of them. Rows that become
    the same setting stay rows.

    Raises:
        UserError: no such method or ablation.
    """
    known = ablations(method)
    if not known:
        others = ", ".join(sorted(path.stem for path in _PUBLISHED.glob("*.toml")))
        raise UserError(f"{method} has no published ablations; {others} have")
    if name not in known:
        raise UserError(f"{method} has no ablation '{name}'{nearest(name, known)}; it has {', '.join(known)}")
    towers = {
        f"method.{f.name}": tower
        for f in fields(methods.get(method).Config)
        if (tower := _tower(f.metadata.get("tune")) or _tower(f.metadata.get("tune_apart")))
    }
    layers = {key: _layers(tower, depths) for key, tower in towers.items()}
    return fitted(read_ablation(_PUBLISHED / f"{method}.toml", name), layers)


def fitted(found: Ablation, layers: Mapping[str, int]) -> Ablation:
    """An ablation with the settings of these keys, counted in 12 layers, scaled to so many."""
    rows, became, alike = [], dict[str, dict[str, str]](), dict[tuple[tuple[str, str], ...], list[str]]()
    for row in found.rows:
        setting = {key: scaled(text, layers[key]) if key in layers else text for key, text in row.setting.items()}
        rows.append(replace(row, setting=setting))
        alike.setdefault(tuple(setting.items()), []).append(row.label)
        for key, text in setting.items():
            if text != row.setting[key]:
                became.setdefault(key, {})[row.setting[key]] = text
    notes = [
        f"{key} counts {PAPER_DEPTH} layers in the paper and {layers[key]} here: "
        + ", ".join(f"{theirs} is {ours}" for theirs, ours in pairs.items())
        for key, pairs in became.items()
    ]
    notes += [f"{' and '.join(labels)} are one setting here" for labels in alike.values() if len(labels) > 1]
    return replace(found, rows=tuple(rows), notes=(*found.notes, *notes))


def _owner(config_class: type) -> str:
    return config_class.__qualname__.removesuffix(".Config")


def _tower(tune: Mapping[str, Any] | None) -> str | None:
    """The tower whose layers the metadata are about, if they are about any."""
    tower: str | None = (tune or {}).get("layers") or (tune or {}).get("depth")
    return tower


def _layers(tower: str, depths: Depths) -> int:
    return min(depths.values()) if tower == "both" else depths[tower]


def _domain(tune: Mapping[str, Any], depths: Depths) -> Domain:
    [(kind, value)] = tune.items()
    match kind:
        case "choice":
            return Choice(tuple(written(option) for option in value))
        case "uniform":
            return Uniform(*value)
        case "loguniform":
            return LogUniform(*value)
        case "layers":
            return Layers(_layers(value, depths))
        case "depth":
            return Integers(1, _layers(value, depths))
    raise TypeError(f"unknown metadata tune={dict(tune)}; vlmodels.methods.base.setting says what there is")
