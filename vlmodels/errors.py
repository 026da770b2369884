"""Errors that a user can correct: the message names the thing and the remedy, and no traceback is needed."""

from __future__ import annotations

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence


class UserError(ValueError):
    """A wrong name, path or value from the user; the message is shown as it is."""


def refuse(problems: Sequence[str]) -> None:
    """Raise UserError with all problems in one message, if there are any."""
    if problems:
        raise UserError("; ".join(dict.fromkeys(problems)))


@contextlib.contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Add the message of a UserError to ``problems`` instead of raising it, so that one message names all mistakes."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def shortened(text: str, most: int = 200) -> str:
    """Return a text of a user for a message: its start and its end, if it is longer than ``most`` characters."""
    kept = most // 2 - 2
    return text if len(text) <= most else f"{text[:kept]}...{text[-kept:]}"


def with_short_words(message: str, most: int = 200) -> str:
    """Return a message in which paths and other words are at most ``most`` characters long."""
    return re.sub(rf"\S{{{most + 1},}}", lambda word: shortened(word.group(), most), message)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to ``name``, or ``""`` if none is close."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def unprintable(text: str) -> str:
    """Name the first character of ``text`` that would garble what is printed or saved; "" if there is none.

    These are control characters, separators of lines, surrogates, and marks that turn the direction of a line.
    """
    garbles = {"Cc", "Cs", "Zl", "Zp"}
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    found = (c for c in text if unicodedata.category(c) in garbles or unicodedata.bidirectional(c) in turns)
    return next((f"U+{ord(character):04X}" for character in found), "")
