"""Presets and ``--set key=value`` overrides become a checked configuration."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.config.check import check
from pipelines.config.plain import to_plain
from pipelines.config.schema import TrainConfig
from pipelines.config.values import parse_value
from vlmodels.errors import UserError, nearest, noted, refuse

if TYPE_CHECKING:
    from vlmodels.methods.base import Method, Preset, Recipe

Group = TypeVar("Group")

_NOT_SET_BY_KEY = frozenset({"method", "preset", "method_config"})
_SHOWN_IN_HELP = ("start", "selection", "test", "seed")
"""Settings without a group that ``--help`` lists."""


def resolve(
    *,
    method: str,
    preset: str | None,
    base: TrainConfig,
    overrides: Sequence[str] = (),
    trained: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Apply the method's preset and then the user's ``key=value`` overrides to ``base``.

    ``trained`` is the method's configuration in the run that training starts from; it takes the place of the preset's.

    Raises:
        UserError: naming every unknown method, preset or key and every value of a wrong type, all at once.
    """
    from vlmodels import methods  # imports torch: late
    from vlmodels.methods import base as methods_base

    cls = methods.get(method)
    config = replace(base, method=method, preset=preset)
    method_config = cls.Config()
    if preset is not None:
        chosen = _preset(cls, method, preset)
        method_config = chosen.method
        config = with_recipe(config, chosen.recipe)
    if trained is not None:
        method_config = methods_base.config_from_plain(cls, trained)
    problems: list[str] = []
    method_values: dict[str, Any] = {}
    for item in overrides:
        with noted(problems):
            key, text = _key_and_text(item)
            if key.startswith("method."):
                name = key.removeprefix("method.")
                method_values[name] = _method_value(method_config, name, text, key)
            else:
                config = _assigned(config, key.split("."), text, key)
    with noted(problems):  # all at once: some rules of a method concern several of its settings
        method_config = replace(method_config, **method_values)
    if problems:
        refuse([*problems, *check(config)])
    return replace(config, method_config=to_plain(method_config))


def with_recipe(config: TrainConfig, recipe: Recipe) -> TrainConfig:
    """Return ``config`` with the optimisation and augmentation settings of a published recipe."""
    return replace(config, optim=_with_shared(config.optim, recipe), augment=_with_shared(config.augment, recipe))


def help_lines() -> str:
    """Return all settings with their defaults, for ``--help``."""
    lines: list[str] = []
    for setting in fields(TrainConfig):
        value = setting.default if setting.default is not dataclasses.MISSING else None
        if is_dataclass(value):
            lines += _group_help(setting.name, value)
        elif setting.name in _SHOWN_IN_HELP:
            lines.append(f"  {setting.name}={value}  {setting.metadata.get('help', '')}")
    lines.append("  method.<field>=...  any field of the method's own configuration")
    return "\n".join(lines)


def _preset(cls: type[Method], method: str, name: str) -> Preset:
    if name not in cls.presets:
        known = ", ".join(cls.presets) or "none"
        raise UserError(f"unknown preset '{name}' of {method}{nearest(name, cls.presets)}; known: {known}")
    return cls.presets[name]


def _key_and_text(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"'{override}' is not of the form key=value")
    return key, text


def _with_shared(group: Group, recipe: Recipe) -> Group:
    """Return ``group`` with the values of the fields that ``recipe`` has too."""
    shared = set(_field_names(group)) & set(_field_names(recipe))
    return replace(group, **{name: getattr(recipe, name) for name in shared})  # type: ignore[type-var]


def _assigned(config: Any, path: Sequence[str], text: str, key: str) -> Any:
    """Return ``config`` with the setting at ``path`` read from ``text``."""
    known = [name for name in _field_names(config) if name not in _NOT_SET_BY_KEY]
    name = path[0]
    if name not in known:
        prefix = key[: key.rindex(name)]
        hint = _group_hint(config, name, known)
        raise UserError(f"unknown setting '{key}'{hint}; known here: {prefix}{{{','.join(known)}}}")
    value = getattr(config, name)
    if is_dataclass(value):
        if len(path) == 1:
            raise UserError(f"'{key}' is a group of settings; set one of {key}.{{{','.join(_field_names(value))}}}")
        return replace(config, **{name: _assigned(value, path[1:], text, key)})
    if len(path) > 1:
        whole = ".".join(key.split(".")[: 1 - len(path)])
        raise UserError(f"'{key}': {whole} is a value and has no parts")
    return replace(config, **{name: parse_value(text, typing.get_type_hints(type(config))[name], key)})


def _group_hint(config: Any, name: str, known: Sequence[str]) -> str:
    """Return the groups that have a setting of this name, else the nearest of the ``known`` names."""
    groups = [group for group in known if is_dataclass(getattr(config, group))]
    having = [f"{group}.{name}" for group in groups if name in _field_names(getattr(config, group))]
    return f" (did you mean {' or '.join(having)}?)" if having else nearest(name, known)


def _method_value(config: Any, name: str, text: str, key: str) -> Any:
    """Return the value of a method's own setting."""
    known = _field_names(config)
    if name not in known:
        raise UserError(f"unknown setting '{key}'{nearest(name, known)}; known here: method.{{{','.join(known)}}}")
    return parse_value(text, typing.get_type_hints(type(config))[name], key)


def _group_help(group: str, defaults: Any) -> Iterator[str]:
    for setting in fields(defaults):
        text = setting.metadata.get("help", "")
        yield f"  {group}.{setting.name}={getattr(defaults, setting.name)}  {text}".rstrip()


def _field_names(config: Any) -> list[str]:
    return [setting.name for setting in fields(config)]
