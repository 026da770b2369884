"""How many requests are inside at a time; who comes when it is full is told when to come again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from pipelines.serving.limits import RefusedError

UPLOADS_PER_PLACE = 2
"""Uploads that may be under way for each place in the queue: slow senders must not keep others out."""
_LONGEST_S = 60
_MEMORY = 0.9
"""Weight of the past in the mean time of a request."""


class Gate:
    """Counts uploads and requests.

    Args:
        places: requests that are worked on or wait for it at a time.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.inside = self.uploads = 0
        self._mean_s = 1.0

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """Hold a place to send in.

        Raises:
            RefusedError: 503, as all are taken, here or inside.
        """
        if self.inside >= self.places or self.uploads >= UPLOADS_PER_PLACE * self.places:
            raise self._full()
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Hold a place inside.

        Raises:
            RefusedError: 503, as all are taken.
        """
        if self.inside >= self.places:
            raise self._full()
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def took(self, seconds: float) -> None:
        """Learn how long a request took."""
        self._mean_s = _MEMORY * self._mean_s + (1 - _MEMORY) * seconds

    def _full(self) -> RefusedError:
        wait = min(_LONGEST_S, max(1, math.ceil(self._mean_s)))
        return RefusedError(
            503,
            "queue_full",
            f"{self.places} requests are being worked on; try again in {wait} s",
            limit="queue",
            value=self.places,
            headers={"Retry-After": str(wait)},
        )
