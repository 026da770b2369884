"""What a sweep leaves on disk: OUT/sweeps/NAME/{sweep.json, trials/ID.json, winner.json}, each file written whole.

It is the sweep's memory: a trial that has ended in a record here is never run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from pipelines.storage.files import write_whole
from pipelines.storage.place import Place, is_uri, why
from pipelines.sweeps.records import STARTED, SweepRecord, TrialRecord, WinnerRecord, from_json, to_json
from vlmodels.errors import UserError
from vlmodels.paths import absolute

Record = TypeVar("Record", SweepRecord, TrialRecord, WinnerRecord)


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep."""

    path: Path

    @classmethod
    def at(cls, out: str, name: str) -> Self:
        """Return the folder of the sweep ``name``: below ``out``, or below runs/ here where ``out`` is a URI."""
        return cls(absolute("runs" if is_uri(out) else out) / "sweeps" / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from running the same sweep; the system lifts the lock with the process.

        Raises:
            UserError: another process is running it.
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

    def sweep(self) -> SweepRecord | None:
        """Read ``sweep.json``; None before the first session."""
        return _read(SweepRecord, self.path / "sweep.json")

    def winner(self) -> WinnerRecord | None:
        """Read ``winner.json``; None without one."""
        return _read(WinnerRecord, self.path / "winner.json")

    def trial(self, trial_id: str) -> TrialRecord | None:
        """Read the record of a trial; None without one."""
        return _read(TrialRecord, self._trial_file(trial_id))

    def trials(self) -> list[TrialRecord]:
        """Read the records of trials that have ended, or failed, in the order in which they did."""
        return [record for record in self._records() if record.status != STARTED]

    def ended(self) -> list[TrialRecord]:
        """Read the records of trials that are not to be run again."""
        return [record for record in self._records() if record.ended]

    def unfinished(self) -> list[TrialRecord]:
        """Read the records of trials that were started and have not ended for good."""
        return [record for record in self._records() if not record.ended]

    def _records(self) -> list[TrialRecord]:
        found = sorted((self.path / "trials").glob("*.json"), key=_written)
        return [record for path in found if (record := _read(TrialRecord, path)) is not None]

    def _trial_file(self, trial_id: str) -> Path:
        return self.path / "trials" / f"{trial_id}.json"

    def write_sweep(self, record: SweepRecord) -> None:
        """Write ``sweep.json``."""
        _write(self.path / "sweep.json", record)

    def write_winner(self, record: WinnerRecord) -> None:
        """Write ``winner.json``."""
        _write(self.path / "winner.json", record)

    def write_trial(self, record: TrialRecord) -> None:
        """Write the record of a trial."""
        _write(self._trial_file(record.id), record)

    def forget_winner(self) -> None:
        """Delete ``winner.json``, where another trial is best by now, or none is."""
        (self.path / "winner.json").unlink(missing_ok=True)

    def discard(self, runs: Place) -> None:
        """Delete the sweep's files, and its trials' ``runs``.

        Raises:
            UserError: the runs cannot be deleted; then nothing is.
        """
        try:
            if runs.is_dir():
                runs.filesystem.delete_dir(runs.root)
        except OSError as error:
            raise UserError(
                f"--fresh cannot delete the trials' runs in {runs.uri}: {why(error)}; delete them yourself, or leave "
                "out --fresh"
            ) from error
        for path in self.path.iterdir():  # the folder itself is what is locked
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def runs_at(out: str, name: str) -> str:
    """Return where trials of the sweep ``name`` leave their runs: with the sweep, or in the store ``out``."""
    place, mark, query = out.partition("?")
    shared = f"{place.rstrip('/')}/sweeps/{name}/runs{mark}{query}"
    return shared if is_uri(out) else str(SweepFolder.at(out, name).path / "runs")


def _written(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name


def _read(kind: type[Record], path: Path) -> Record | None:
    if not path.is_file():
        return None
    try:
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not a record of a sweep: {' '.join(str(error).split())}; delete it") from error


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(record), indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
