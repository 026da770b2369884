"""Presets and ``--set key=value`` overrides become a checked configuration."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from pipelines.config.plain import to_plain
from pipelines.config.schema import (
    TrainConfig,
)
from pipelines.config.values import parse_value
from vlmodels.errors import UserError, nearest, noted, refuse


def resolve(
    *,
    method: str,
    preset: str | None,
    base: TrainConfig,
    overrides: Sequence[str] = (),
    trained: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Apply the method's preset and then the user's ``key=value`` overrides to ``base``.

    ``trained`` is the method's configuration in the run that training starts from; it comes before the preset's.

    Raises:
        UserError: naming every unknown method, preset or key and every value of a wrong type, all at once.
    """
    from vlmodels import methods
    from vlmodels.methods import base as methods_base

    cls = methods.get(method)
    config = replace(base, method=method, preset=preset)
    method_config = cls.Config()
    if preset is not None:
        if preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise UserError(f"unknown preset '{preset}' of {method}{nearest(preset, cls.presets)}; known: {known}")
        chosen = cls.presets[preset]
        method_config = chosen.method
        config = replace(
            config,
            optim=_with_recipe(config.optim, chosen.recipe),
            augment=_with_recipe(config.augment, chosen.recipe),
        )
    if trained is not None:
        method_config = methods_base.config_from_plain(cls, trained)
    problems: list[str] = []
    chosen_values: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        try:
            if not equals:
                raise UserError(f"'{item}' is not of the form key=value")
            if key.startswith("method."):
                chosen_values |= _parsed(method_config, key.removeprefix("method."), text, key)
            else:
                config = _assign(config, key.split("."), text, key)
        except ValueError as error:
            problems.append(str(error))
    with noted(problems):  # all at once: some rules are about several of them
        method_config = replace(method_config, **chosen_values)
    if problems:
        from pipelines.config.rules import check

        refuse([*problems, *check(config)])
    return replace(config, method_config=to_plain(method_config))


def _with_recipe(config: Any, recipe: Any) -> Any:
    """Take over the recipe's fields that ``config`` has too."""
    shared = set(_names(config)) & set(_names(recipe))
    return replace(config, **{name: getattr(recipe, name) for name in shared})


def _assign(config: Any, path: Sequence[str], text: str, key: str) -> Any:
    known = {f.name: f for f in fields(config) if f.name not in {"method", "preset", "method_config"}}
    name = path[0]
    if name not in known:
        prefix = key[: key.rindex(name)]
        groups = [
            f"{group}.{name}"
            for group in known
            if is_dataclass(part := getattr(config, group)) and name in _names(part)
        ]
        hint = f" (did you mean {' or '.join(groups)}?)" if groups else nearest(name, known)
        raise UserError(f"unknown setting '{key}'{hint}; known here: {prefix}{{{','.join(known)}}}")
    value = getattr(config, name)
    if is_dataclass(value):
        if len(path) == 1:
            raise UserError(f"'{key}' is a group of settings; set one of {key}.{{{','.join(_names(value))}}}")
        return replace(config, **{name: _assign(value, path[1:], text, key)})
    if len(path) > 1:
        raise UserError(f"'{key}': {'.'.join(key.split('.')[: -len(path) + 1])} is a value and has no parts")
    return replace(config, **{name: parse_value(text, typing.get_type_hints(type(config))[name], key)})


def _parsed(config: Any, name: str, text: str, key: str) -> dict[str, Any]:
    """A method's setting and its value."""
    if name not in _names(config):
        known = _names(config)
        raise UserError(f"unknown setting '{key}'{nearest(name, known)}; known here: method.{{{','.join(known)}}}")
    return {name: parse_value(text, typing.get_type_hints(type(config))[name], key)}


def _names(config: Any) -> list[str]:
    return [f.name for f in fields(config)]


def help_lines() -> str:
    """All settings with their defaults, for ``--help``."""
    lines: list[str] = []
    for f in fields(TrainConfig):
        value = f.default if f.default is not dataclasses.MISSING else None
        if is_dataclass(value):
            lines += [
                f"  {f.name}.{g.name}={getattr(value, g.name)}  {g.metadata.get('help', '')}".rstrip()
                for g in fields(value)
            ]
        elif f.name in ("start", "selection", "test", "seed"):
            lines.append(f"  {f.name}={value}  {f.metadata.get('help', '')}")
    lines.append("  method.<field>=...  any field of the method's own configuration")
    return "\n".join(lines)
