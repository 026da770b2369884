"""The claim of one ingest on the folder that it writes to.

The file ``CLAIM`` in the folder is locked for as long as the ingest runs. Its text, a token, distinguishes the folder
from one of the same name on another machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from pipelines.cluster.node_facts import look
from pipelines.ingestion.destination import Destination
from pipelines.shards.index import PARTS, SHARDS
from vlmodels.errors import UserError

CLAIM = f"{PARTS}/lock"
SHARE_OUT = "on several machines --out must be a shared folder or a store (s3://...)"


@contextmanager
def claimed(destination: Destination) -> Iterator[Destination]:
    """Make the folder and keep other ingests out of it during the block; yield the destination with its token.

    Raises:
        UserError: the folder cannot be written to, or another ingest writes to it.
    """
    token = secrets.token_hex(8)
    folder = destination.folder
    try:
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)
        with (folder / CLAIM).open("a") as file:
            _lock(file, destination)
            try:
                _write_token(file, token)
                yield replace(destination, token=token)
            finally:
                _remove_if_unused(folder / PARTS)
    except (ConnectionError, TimeoutError):
        raise  # from Ray, not from this folder
    except OSError as error:
        raise UserError(destination.unwritable(error)) from error


def has_claim(folder: Path, token: str) -> bool:
    """Return whether ``folder``, as this machine sees it, is the one that the ingest with this token has claimed."""
    found = look(str(folder / CLAIM))
    return found is not None and found[1] == token.encode()


def _lock(file: TextIO, destination: Destination) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another ingest is writing to {destination}; wait for it or choose another --out") from None
    except OSError:
        pass  # a file system without locks


def _write_token(file: TextIO, token: str) -> None:
    file.truncate(0)
    file.write(token)
    file.flush()
    os.fsync(file.fileno())


def _remove_if_unused(parts: Path) -> None:
    if [path.name for path in parts.glob("*")] == [Path(CLAIM).name]:
        shutil.rmtree(parts, ignore_errors=True)
