"""Temporary folders below the cache root, for files on their way to or from a store."""

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
    """Yield an empty folder of this process, one for each ``purpose`` at a time; remove it after the block.

    Folders that killed processes of this machine left behind are removed as well.

    Raises:
        OSError: the folder cannot be made.
    """
    work = cache_root() / "ingest" / "work"
    own = work / f"{socket.gethostname()}.{os.getpid()}.{purpose}"  # several machines may share the disk
    shutil.rmtree(own, ignore_errors=True)  # of an earlier process with this number
    own.mkdir(parents=True)
    for folder in work.iterdir():
        if _owner_is_gone(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _owner_is_gone(name: str) -> bool:
    """Return whether this is a folder of a process of this machine that has ended."""
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
