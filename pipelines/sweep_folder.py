"""What a sweep leaves on disk: OUT/sweeps/NAME/{sweep.json, trials/ID.json, winner.json}, each file written whole.

It is the sweep's memory: a trial that has a record here is never run again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.data.folder import write_whole

SCHEMA = 1
"""Version of the three kinds of file."""

Record = Mapping[str, Any]
STATUS = "status"
ENDED = ("finished", "pruned", "diverged", "invalid")
"""How a trial ends for good; one that failed (a lost machine, a full disk) is tried again by the next session."""

STARTED = "started"
"""The status of a trial that is running, or was when its session was cut off."""


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep."""

    path: Path

    @classmethod
    def at(cls, out: str, name: str) -> SweepFolder:
        """The folder of the sweep ``name``: below ``out``, or below runs/ here where ``out`` is a URI."""
        return cls(Path("runs" if "://" in out else out).resolve() / "sweeps" / name)

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
        return [record for record in self._records() if record[STATUS] in ENDED]

    def unfinished(self) -> list[dict[str, Any]]:
        """Records of trials that were started and have not ended for good."""
        return [record for record in self._records() if record[STATUS] not in ENDED]

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

    def discard(self) -> None:
        """Forget the sweep and its trials' runs."""
        shutil.rmtree(self.path, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, **record}, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
