"""SHA-256 of large files, computed once on each machine for each state of a file.

A state is size, times of change and inode: what is written to a file changes it. The digests of a folder's files are
lines of a small file below the cache root, which the processes of a machine share; if it is lost, files are read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.storage.cache import cache_key, cache_root
from pipelines.storage.files import file_sha256

State = tuple[int, int, int, int]
AT_ONCE = 8
"""Files hashed side by side: hashing lets go of the interpreter, and one thread hashes less than a disk reads."""


class KnownDigests:
    """What this machine knows of the files of a folder; cheap to pickle.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = cache_root() / "digests" / f"{socket.gethostname()}-{cache_key(str(folder))}.jsonl"
        self._known: dict[str, tuple[State, str]] = {}
        self._read = (-1, -1)  # size and time of what was read last

    def __reduce__(self) -> tuple[type[KnownDigests], tuple[Path]]:
        return (KnownDigests, (self._folder,))

    def unknown(self, paths: Sequence[Path]) -> list[Path]:
        """Return those of ``paths`` that have changed since this machine read them, or that it never read."""
        self._load()
        return [path for path in paths if self._recall(path) is None]

    def sha256(self, path: Path, *, again: bool = False, compute: Callable[[Path], str] = file_sha256) -> str:
        """Return the SHA-256 of a file.

        Args:
            path: of the file.
            again: read the file whether or not it is known.
            compute: from the file to its digest; always the same one for the same file.

        Raises:
            OSError: the file cannot be read.
        """
        found = None if again else self._recall(path)
        if found is not None:
            return found
        with self._alone():
            self._load()
            found = None if again else self._recall(path)  # another process may have read it meanwhile
            return found if found is not None else self._compute(path, compute)

    def read_all(self, paths: Sequence[Path], *, again: bool = False) -> None:
        """Read files of which the digest is not known, several at a time; other processes wait meanwhile.

        A file that cannot be read is passed over.
        """
        if not again and not self.unknown(paths):
            return
        with self._alone(), ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as threads:
            list(threads.map(self._try, paths if again else self.unknown(paths)))

    def _try(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._compute(path, file_sha256)

    def _compute(self, path: Path, compute: Callable[[Path], str]) -> str:
        state = _state(path)  # before it is read: a change while it is read is seen the next time
        digest = compute(path)
        self._known[path.name] = (state, digest)
        line = json.dumps([path.name, state, digest]) + "\n"
        with contextlib.suppress(OSError), self._kept.open("a") as file:  # without it, each process reads for itself
            file.write(line)
        return digest

    def _recall(self, path: Path) -> str | None:
        known = self._known.get(path.name)
        return known[1] if known is not None and known[0] == _state(path) else None

    def _load(self) -> None:
        """Read what other processes have added; lines that are no digests are passed over."""
        try:
            found = self._kept.stat()
            if (found.st_size, found.st_mtime_ns) == self._read:
                return
            text = self._kept.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        self._read = (found.st_size, found.st_mtime_ns)
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                name, state, digest = json.loads(line)
                size, mtime_ns, ctime_ns, inode = state
                self._known[str(name)] = ((size, mtime_ns, ctime_ns, inode), str(digest))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other processes of this machine from reading the same files at the same time."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks, or one that cannot be written
                self._kept.parent.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(self._kept.with_suffix(".lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _state(path: Path) -> State:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
