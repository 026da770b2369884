"""What a sweep leaves on disk: OUT/sweeps/NAME/{sweep.json, trials/ID.json, winner.json}, each file written whole.

It is the sweep's memory: a trial that has a record here is never run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage.files import write_whole
from pipelines.storage.place import Place, is_uri, why
from vlmodels.errors import UserError

SCHEMA = 1
"""Version of the three kinds of file."""

Record = Mapping[str, Any]
STATUS = "status"
ENDED = ("finished", "pruned", "diverged", "invalid")
"""How a trial ends for good; one that failed (a lost machine, a full disk) is tried again by the next session."""

GIVEN_UP = 2
"""In how many sessions a trial must have failed to be taken for one that always will."""

STARTED = "started"
"""The status of a trial that is running, or was when its session was cut off."""


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep."""

    path: Path

    @classmethod
    def at(cls, out: str, name: str) -> SweepFolder:
        """The folder of the sweep ``name``: below ``out``, or below runs/ here where ``out`` is a URI."""
        return cls(Path("runs" if is_uri(out) else out).resolve() / "sweeps" / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from running the same sweep; the system ends it with the process.

        Raises:
            UserError: one is running it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        held = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path.name} is running already; wait for it, or stop it first") from error
            yield
        finally:
            os.close(held)

    def sweep(self) -> dict[str, Any] | None:
        """What the sweep is, or None before its first session."""
        return _read(self.path / "sweep.json")

    def winner(self) -> dict[str, Any] | None:
        """The winner and its runs, or None."""
        return _read(self.path / "winner.json")

    def trials(self) -> list[dict[str, Any]]:
        """Records of trials that have ended, or failed, in the order in which they did."""
        return [record for record in self._records() if record[STATUS] != STARTED]

    def ended(self) -> list[dict[str, Any]]:
        """Records of trials that are not to be run again."""
        return [record for record in self._records() if has_ended(record)]

    def unfinished(self) -> list[dict[str, Any]]:
        """Records of trials that were started and have not ended for good."""
        return [record for record in self._records() if not has_ended(record)]

    def trial(self, number: str) -> dict[str, Any] | None:
        """The record of a trial, or None."""
        return _read(self.path / "trials" / f"{number}.json")

    def _records(self) -> list[dict[str, Any]]:
        found = sorted((self.path / "trials").glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [record for path in found if (record := _read(path)) is not None]

    def write_sweep(self, record: Record) -> None:
        """Write ``sweep.json``."""
        _write(self.path / "sweep.json", record)

    def write_winner(self, record: Record) -> None:
        """Write ``winner.json``."""
        _write(self.path / "winner.json", record)

    def write_trial(self, record: Record) -> None:
        """Write the record of a trial."""
        _write(self.path / "trials" / f"{record['id']}.json", record)

    def forget_winner(self) -> None:
        """Drop ``winner.json``, where another trial is best by now, or none is."""
        (self.path / "winner.json").unlink(missing_ok=True)

    def discard(self, runs: str) -> None:
        """Forget the sweep, and its trials' ``runs``, be they with it or in a store.

        Raises:
            UserError: the runs cannot be deleted; then nothing is forgotten.
        """
        place = Place.open(runs)
        try:
            if place.is_dir():
                place.filesystem.delete_dir(place.root)
        except OSError as error:
            raise UserError(
                f"--fresh cannot delete the trials' runs in {place.uri}: {why(error)}; delete them yourself, or leave "
                "out --fresh"
            ) from error
        for path in self.path.iterdir():  # the folder itself is what is locked
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def runs_at(out: str, name: str) -> str:
    """Where trials of the sweep ``name`` leave their runs: with the sweep, or in the store that the user named."""
    place, mark, query = out.partition("?")
    shared = f"{place.rstrip('/')}/sweeps/{name}/runs{mark}{query}"
    return shared if is_uri(out) else str(SweepFolder.at(out, name).path / "runs")


def has_ended(record: Record) -> bool:
    """Whether a trial is not to be run again."""
    return record[STATUS] in ENDED or record["failures"] >= GIVEN_UP


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, **record}, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
