"""What ends a run for good: trying again would do the same."""

from __future__ import annotations


class DivergedError(RuntimeError):
    """The loss or the scores became NaN or infinite."""
