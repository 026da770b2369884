"""The registry of methods: every file in this folder but ``base.py`` is a method, named like its file."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from vlmodels.methods.base import Method


def names() -> list[str]:
    """Return the names of all methods, from the file names alone: torch is not imported."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


@functools.cache
def get(name: str) -> type[Method]:
    """Import a method's class by name.

    Raises:
        UserError: no method has this name; the message suggests the nearest.
        TypeError: the file breaks the rules of a method (a developer's mistake).
    """
    if name not in names():
        raise UserError(f"unknown method '{name}'{nearest(name, names())}; there are {', '.join(names())}")
    from vlmodels.methods.base import Method

    module = importlib.import_module(f"{__name__}.{name}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    problems = broken_rules(name, own)
    if problems:
        raise TypeError(f"{module.__file__}: {'; '.join(problems)}")
    return own[0]


def broken_rules(name: str, found: list[type[Method]]) -> list[str]:
    """Return the rules of a method that a file breaks: one class, its name, docstring and attributes."""
    if len(found) != 1:
        return [f"must define one Method, not {len(found)}"]
    cls = found[0]
    problems = []
    if cls.__name__.lower() != name.replace("_", ""):
        problems.append(f"class {cls.__name__} must be named like its file, {name}")
    if "__doc__" not in vars(cls) or not cls.__doc__:
        problems.append("the class needs a docstring")
    needed = ("Config", "paper", "temporal", "starts_as_backbone", "presets")
    problems += [f"needs its own {part}" for part in needed if part not in vars(cls)]
    return problems
