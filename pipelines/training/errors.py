"""What ends a run for good: trying again would do the same."""

from __future__ import annotations

from vlmodels.errors import UserError


class DivergedError(UserError):
    """The loss or the scores became NaN or infinite."""
