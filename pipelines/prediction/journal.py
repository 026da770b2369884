"""What is done of a prediction of many videos, in a folder beside its results: appended at once, read after a kill.

The folder holds ``about.json`` (of what the results are made), ``rows.jsonl`` (a line for each video that is done) and
``lock``, which is held while a process writes. A last line that a kill has cut off is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.prediction.rows import FAILED, Row
from pipelines.prediction.videos import Listing
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError, shortened

ABOUT, ROWS, LOCK = "about.json", "rows.jsonl", "lock"
SCHEMA = 1
SYNC_EVERY = 1000
"""Videos after which the disk is asked to have them: what a kill cannot take, the end of a machine could."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A video that is done.

    Attributes:
        index: its place in the listing.
        rows: of it, or of its parts.
        bytes: size of its file when it was read; None if unknown.
        mtime_ns: its time of change.
        part: number of the file of features that holds its rows; -1 if there is none.
    """

    index: int
    rows: tuple[Row, ...]
    bytes: int | None = None
    mtime_ns: int | None = None
    part: int = -1


@dataclass(frozen=True, slots=True)
class Outdated:
    """A video that is to be done again: its earlier rows, and the part of features that holds them (-1: none)."""

    part: int
    rows: tuple[Row, ...]


class Journal:
    """The videos of a listing that are done; see ``opened``."""

    def __init__(self, folder: Path, listing: Listing) -> None:
        self.folder = folder
        self.listing = listing
        self.parts: set[int] = set()
        self._at = array("q", [-1]) * len(listing)
        self._file: IO[bytes] = (folder / ROWS).open("a+b")
        self._unsynced = 0

    def __len__(self) -> int:
        return sum(at >= 0 for at in self._at)

    def has(self, index: int) -> bool:
        """Return whether a video is done."""
        return self._at[index] >= 0

    def pending(self) -> array[int]:
        """Return the places of the videos that are not done."""
        return array("q", (index for index, at in enumerate(self._at) if at < 0))

    def add(self, entries: Sequence[Entry]) -> None:
        """Append videos.

        Raises:
            OSError: they cannot be written.
        """
        self._file.seek(0, os.SEEK_END)
        at = self._file.tell()
        for entry in entries:
            line = {
                "key": self.listing.key_of(entry.index).hex(),
                "bytes": entry.bytes,
                "mtime_ns": entry.mtime_ns,
                "part": entry.part,
                "rows": [row.to_json() for row in entry.rows],
            }
            content = json.dumps(line, allow_nan=False).encode() + b"\n"
            self._file.write(content)
            self._at[entry.index] = at
            at += len(content)
        self._file.flush()
        self._unsynced += len(entries)
        if self._unsynced >= SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all videos that are done, in the order of the listing."""
        for at in self._at:
            if at >= 0:
                self._file.seek(at)
                yield from (Row.from_json(one) for one in json.loads(self._file.readline())["rows"])

    def read(self, *, retry: bool, drop: Callable[[Sequence[Outdated]], None]) -> None:
        """Take over what an earlier process has done, but for what has to be done again, which is removed.

        That are videos whose file has changed since, and, to ``retry``, those that have failed. Videos that are not in
        the listing stay.

        Args:
            retry: whether what has failed is done again.
            drop: removes what is outdated elsewhere; called first, so that a kill leaves no line of it missing.

        Raises:
            OSError: it cannot be read or written.
        """
        self._cut_torn_line()
        wanted = {self.listing.key_of(index): index for index in range(len(self.listing))}
        outdated: list[Outdated] = []
        gone: set[int] = set()
        for at, found in self._lines():
            index = wanted.get(bytes.fromhex(found["key"]), -1)
            failed = any(row["status"] == FAILED for row in found["rows"])
            if index >= 0 and ((retry and failed) or self._has_changed(index, found)):
                gone.add(at)
                outdated.append(Outdated(found["part"], tuple(map(Row.from_json, found["rows"]))))
            self.parts.add(found["part"])
        self.parts.discard(-1)
        drop(outdated)
        if gone:
            self._remove_lines(gone)
        self.parts.clear()
        for at, found in self._lines():
            self.parts.add(found["part"])
            index = wanted.get(bytes.fromhex(found["key"]), -1)
            if index >= 0:
                self._at[index] = at
        self.parts.discard(-1)

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        self._file.seek(0)
        at = 0
        for line in self._file:
            yield at, json.loads(line)
            at += len(line)

    def _remove_lines(self, gone: set[int]) -> None:
        path = self.folder / ROWS

        def write(part: Path) -> None:
            with part.open("wb") as file:
                file.writelines(json.dumps(found).encode() + b"\n" for at, found in self._lines() if at not in gone)

        write_whole(path, write)
        self._file.close()
        self._file = path.open("a+b")

    def _has_changed(self, index: int, found: Mapping[str, Any]) -> bool:
        if self.listing[index].reason:
            return False  # known to be wrong before it is opened
        if found["bytes"] is None:  # it was not there; or it is of a store
            return not self._is_same_absence(index)
        try:
            now = os.stat(self.listing.path(self.listing[index].video))  # noqa: PTH116 - both numbers of one call
        except (OSError, ValueError):
            return True
        return (now.st_size, now.st_mtime_ns) != (found["bytes"], found["mtime_ns"])

    def _is_same_absence(self, index: int) -> bool:
        video = self.listing[index].video
        return "://" in video or not os.path.exists(self.listing.path(video))  # noqa: PTH110 - any name

    def _cut_torn_line(self) -> None:
        """Remove what a kill has left of a last line, and whatever is behind a damaged one."""
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n") or not _is_json(line):
                break
            whole += len(line)
        self._file.truncate(whole)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@contextmanager
def opened(folder: Path, listing: Listing, about: Mapping[str, Any], *, overwrite: bool, out: str) -> Iterator[Journal]:
    """Open the journal in ``folder``, which is made, and keep other processes out of it during the block.

    Args:
        folder: of the journal.
        listing: the videos that are wanted.
        about: what the results are made of; what is there must be made of the same.
        overwrite: begin anew.
        out: name of the results, for messages.

    Raises:
        UserError: another process writes there, what is there was made of something else, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("a+", encoding="utf-8") as lock:
            _lock(lock, out)
            _check_about(folder, about, overwrite=overwrite, out=out)
            journal = Journal(folder, listing)
            try:
                yield journal
            finally:
                journal.close()
    except (ConnectionError, TimeoutError):
        raise  # from Ray, not from this folder
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror or error} ({error.filename or folder}); make room or choose another "
            "--out; what is done is kept, and the same command continues"
        ) from error


def _lock(file: IO[str], out: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"{out} is being written by {file.read() or 'another process'}; wait for it, or choose another --out"
        ) from None
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def _check_about(folder: Path, about: Mapping[str, Any], *, overwrite: bool, out: str) -> None:
    wanted = json.loads(json.dumps({"schema": SCHEMA, **about}))
    if overwrite:
        clear(folder)
    found = _read(folder / ABOUT)
    if found is not None and found != wanted:
        different = [name for name in wanted if found.get(name) != wanted[name]]
        said = ", ".join(f"{name}: {_short(found.get(name))} instead of {_short(wanted[name])}" for name in different)
        raise UserError(
            f"{out} was begun with other settings ({said}); choose another --out, or --overwrite to begin anew"
        )
    if found is None:
        clear(folder)
        text = json.dumps(wanted, indent=1)
        write_whole(folder / ABOUT, lambda path: path.write_text(text, encoding="utf-8"))


def clear(folder: Path) -> None:
    """Remove what a journal's folder holds, but for the lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _short(value: Any) -> str:
    return shortened(str(value), 80)
