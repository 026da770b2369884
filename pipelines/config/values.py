"""Read the values of ``--set key=value`` by the type of their setting."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from vlmodels.errors import UserError, nearest


def parse_value(text: str, hint: Any, key: str) -> Any:
    """Read ``text`` as the type ``hint`` of the setting ``key``.

    Raises:
        UserError: naming the key, the text and what was expected.
    """
    origin = get_origin(hint)
    if origin is Literal:
        options = {str(option): option for option in get_args(hint)}
        if text not in options:
            raise UserError(f"{key}='{text}' is not one of {', '.join(options)}{nearest(text, options)}")
        return options[text]
    if origin in (types.UnionType, typing.Union):
        if text.lower() in ("none", "null") and type(None) in get_args(hint):
            return None
        return parse_value(text, next(h for h in get_args(hint) if h is not type(None)), key)
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
        return tuple(parse_value(part, get_args(hint)[0], key) for part in parts)
    read, kind = _READERS.get(hint, (None, ""))
    if read is None:
        raise UserError(f"{key} cannot be set from the command line (type {hint})")
    try:
        return read(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"{key}='{text}' is not {kind}") from error


def whole_numbers(text: str, *, least: int = 0) -> tuple[int, ...]:
    """Read ``1,2,3``; a number that is given twice counts once.

    Raises:
        argparse.ArgumentTypeError: it is not a list of whole numbers from ``least``.
    """
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers; write 1,2,3") from None
    if min(numbers) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers from {least}")
    return numbers


_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_READERS: Mapping[Any, tuple[Any, str]] = {
    bool: (lambda text: _TRUTH[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a text"),
}
