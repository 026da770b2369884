"""The error of this package that a user can fix; it needs no traceback."""

from __future__ import annotations


class DescriptionError(ValueError):
    """A mistake in the user's input (a file, a server address, a class list); its message is shown unchanged."""
