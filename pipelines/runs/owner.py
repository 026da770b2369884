"""One process owns a run: a second one that would train the same is told by whom it is being trained."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pipelines.records.home import Home
from pipelines.storage.place import SCRATCH
from vlmodels.errors import UserError


@dataclass(frozen=True)
class Owner:
    """The process that trains a run."""

    host: str
    pid: int
    since: str

    @classmethod
    def of_this_process(cls) -> Owner:
        """Describe this process."""
        return cls(socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, content: str) -> Owner | None:
        """Read the description; None if it was cut off while it was written."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextlib.contextmanager
def owned(home: Home, name: str, note: Callable[[str], None]) -> Iterator[None]:
    """Own the run ``name`` during the block.

    In a folder a lock shows whether the owner lives. A store has no locks: a process of another machine that was cut
    off cannot be told from one that still runs, and is succeeded with a note.

    Raises:
        UserError: another process trains the run.
    """
    if home.local:
        with _locked(Path(home.root) / SCRATCH / f"{name}.owner", name):
            yield
        return
    _succeed(home, name, note)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            home.forget(f"{name}.owner")


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            _lock(file, name)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else the owner before has removed it
                    break
        file.truncate(0)
        file.write(json.dumps(asdict(Owner.of_this_process())))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(file: IO[str], name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(_taken(name, Owner.from_json(file.read()))) from None
    except OSError:
        pass  # a file system without locks


def _succeed(home: Home, name: str, note: Callable[[str], None]) -> None:
    content = home.recall(f"{name}.owner")
    other = Owner.from_json(content) if content else None
    here = Owner.of_this_process()
    if other and other.host == here.host and other.pid != here.pid and Path(f"/proc/{other.pid}").exists():
        raise UserError(_taken(name, other))
    if other and other.host != here.host:
        note(f"taking over from {other}, which was cut off, or still runs")
    home.remember(f"{name}.owner", json.dumps(asdict(here)))


def _taken(name: str, owner: Owner | None) -> str:
    return f"{name} is being trained by {owner or 'another process'}; wait for it, or end it first"
