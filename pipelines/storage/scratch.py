"""Room on this machine's disk, below the cache root, for what is on its way to or from a store."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.storage.cache import cache_root


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Yield an empty folder of this process for one ``purpose`` at a time; it goes with the block.

    What killed processes of this machine left behind goes as well.

    Raises:
        OSError: it cannot be made.
    """
    work = cache_root() / "ingest" / "work"
    own = work / f"{socket.gethostname()}.{os.getpid()}.{purpose}"  # several machines may share the disk
    shutil.rmtree(own, ignore_errors=True)  # of an earlier process with this number
    own.mkdir(parents=True)
    for left in work.iterdir():
        if _is_left(left.name):
            shutil.rmtree(left, ignore_errors=True)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _is_left(name: str) -> bool:
    match = re.fullmatch(rf"{re.escape(socket.gethostname())}\.(\d+)\.\w+", name)
    if match is None:
        return False
    try:
        os.kill(int(match.group(1)), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
