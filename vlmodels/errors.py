"""The one kind of error that is a user's to mend: it names the thing and the remedy, and needs no traceback."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence


class UserError(ValueError):
    """A mistake in what the user gave (a name, a path, a value); its message is shown as it is."""


def refuse(problems: Sequence[str]) -> None:
    """Raise UserError with all problems in one message, if there are any."""
    if problems:
        raise UserError("; ".join(dict.fromkeys(problems)))


@contextlib.contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Take a user's mistake down and go on, so that all of them are told together."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to ``name``, or ``""`` if none is close."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
