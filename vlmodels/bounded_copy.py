"""Copy what a store or a web server gives to a file, within a size and a time that hold whatever the source does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from typing import Any, BinaryIO

CHUNK = 4 << 20
"""Bytes that are read at once."""


def copy_within(
    opened: Callable[[], AbstractContextManager[Any]],
    file: BinaryIO,
    *,
    most: int,
    too_large: Exception,
    seconds: float,
    too_slow: Exception,
    cut: Callable[[], None] = lambda: None,
) -> int:
    """Copy a stream to a file; return its bytes.

    Neither pyarrow nor fsspec can be interrupted, and a source that sends a byte at a time never exceeds the limit of
    one read. So a thread opens the source and reads it; when the time is up, the caller goes on at once, and the thread
    ends with the read that it waits for.

    Args:
        opened: opens the stream, which has ``read``, and maybe ``read1``.
        file: open for writing; closed if this fails.
        most: bytes.
        too_large: raised if there are more.
        seconds: from the opening to the last byte.
        too_slow: raised if it takes longer.
        cut: ends what the thread waits for, where that can be done.

    Raises:
        Exception: ``too_large``, ``too_slow``, or what the stream raises.
    """
    copied: Future[int] = Future()

    def copy() -> None:
        try:
            copied.set_result(_copy(opened, file, most, too_large))
        except BaseException as error:  # noqa: BLE001 - the caller's to judge
            copied.set_exception(error)

    # No pool's thread, which the interpreter would wait for when it ends.
    threading.Thread(target=copy, name="copy", daemon=True).start()
    with ExitStack() as unfinished:
        unfinished.callback(cut)
        unfinished.callback(file.close)  # what the thread still gets has nowhere to go, which ends it
        if not wait([copied], seconds).done:
            raise too_slow
        size = copied.result()
        unfinished.pop_all()
    return size


def _copy(opened: Callable[[], AbstractContextManager[Any]], file: BinaryIO, most: int, too_large: Exception) -> int:
    size = 0
    with opened() as stream:
        read = getattr(stream, "read1", stream.read)  # returns what has come, rather than wait for all of it
        while chunk := read(CHUNK):
            size += len(chunk)
            if size > most:
                raise too_large
            file.write(chunk)
    return size
