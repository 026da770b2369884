"""The error of this package that is a user's to mend; it needs no traceback."""

from __future__ import annotations


class DescriptionError(ValueError):
    """A mistake in what the user gave (a file, a server address, a class list); shown as it is."""
