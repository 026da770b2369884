"""Errors that end a run for good: a retry would only repeat them."""

from __future__ import annotations

from vlmodels.errors import UserError


class DivergedError(UserError):
    """The loss or the scores became NaN or infinite."""
