"""Iterate ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """Yield ``items``, which a thread draws up to ``depth`` ahead; an error of the iterator is raised here."""
    ready: queue.Queue[tuple[list[Item], BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(entry: tuple[list[Item], BaseException | None]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put(([item], None)):
                    return
            put(([], StopIteration()))
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            put(([], error))

    threading.Thread(target=fill, name="prefetch", daemon=True).start()
    try:
        while True:
            found, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield from found
    finally:
        closed.set()
