"""Search spaces that the metadata of a method's ``Config`` describe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from tune_spaces.domains import Choice, Domain, Integers, Layers, LogUniform, Space, Uniform, to_text
from vlmodels.errors import UserError, nearest, refuse

Depths = Mapping[str, int]
"""Number of layers of the towers "video" and "text"."""


def config_space(
    config_class: type[Any], *, depths: Depths, prefix: str = "method.", names: Iterable[str] | None = None
) -> Space:
    """Build the space of all fields of a ``Config`` whose metadata say what to try.

    Args:
        config_class: a method's ``Config``; ``vlmodels.methods.base.setting`` describes its fields' metadata.
        depths: layers of the towers.
        prefix: the part of a setting's key before the field's name.
        names: the only fields to take; default: all.

    Raises:
        UserError: no field has values to try, or some of ``names`` have none; one message names them all.
    """
    found = {f.name: _domain(f.metadata["tune"], depths) for f in fields(config_class) if f.metadata.get("tune")}
    chosen = list(found if names is None else names)
    owner = _owner(config_class)
    if not chosen:
        raise UserError(f"{owner} has no values to try; give some with --grid {prefix}NAME=a,b,c")
    others = f"it has some for {', '.join(found) or 'no setting'}"
    refuse(
        [
            f"{owner} has no values to try for '{name}'{nearest(name, found)} ({others}); "
            f"give some with --grid {prefix}{name}=a,b,c"
            for name in chosen
            if name not in found
        ]
    )
    return {prefix + name: found[name] for name in chosen}


def insertion_space(config_class: type[Any], *, depths: Depths, prefix: str = "method.", apart: bool = False) -> Space:
    """Build the space of the layers that a method changes: ranges and numbers of layers.

    Args:
        config_class: a method's ``Config``.
        depths: layers of the towers.
        prefix: the part of a setting's key before the field's name.
        apart: vary each tower by itself, instead of both alike.

    Raises:
        UserError: the method has no setting that chooses layers.
    """
    found = {}
    for f in fields(config_class):
        tune = (apart and f.metadata.get("tune_apart")) or f.metadata.get("tune")
        if tune and tower_of(tune):
            found[prefix + f.name] = _domain(tune, depths)
    if not found:
        raise UserError(f"{_owner(config_class)} has no layers to choose; search its other settings")
    return found


def tower_of(tune: Mapping[str, Any] | None) -> str | None:
    """Return the tower whose layers a field chooses ("video", "text" or "both"), or None if it chooses no layers."""
    tower: str | None = (tune or {}).get("layers") or (tune or {}).get("depth")
    return tower


def tower_depth(tower: str, depths: Depths) -> int:
    """Return the number of layers of a tower; for "both", of the shallower one."""
    return min(depths.values()) if tower == "both" else depths[tower]


def _owner(config_class: type) -> str:
    return config_class.__qualname__.removesuffix(".Config")


def _domain(tune: Mapping[str, Any], depths: Depths) -> Domain:
    [(kind, value)] = tune.items()
    match kind:
        case "choice":
            return Choice(tuple(to_text(option) for option in value))
        case "uniform":
            return Uniform(*value)
        case "loguniform":
            return LogUniform(*value)
        case "layers":
            return Layers(tower_depth(value, depths))
        case "depth":
            return Integers(1, tower_depth(value, depths))
    raise TypeError(f"unknown metadata tune={dict(tune)}; vlmodels.methods.base.setting lists the known kinds")
