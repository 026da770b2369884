"""What decoding finds out about a clip, and the state of the file that it read; the only place that knows the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.shards.manifest import FACTS

OK = "ok"
QUARANTINED = "quarantined"
FATAL = "fatal"
"""Status of the one row that a batch returns if the run cannot continue; it is never stored."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size and time of change of a file, which show whether it has changed since it was read."""

    bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """The columns ``FACTS`` of one clip, and the address of the machine that decoded it now ("" if none did)."""

    clip_id: str
    status: str
    error: str = ""
    bytes: int | None = None
    mtime_ns: int | None = None
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    n_frames: int | None = None
    decoder: str = ""
    shard: str = ""
    row: int | None = None
    machine: str = ""

    @classmethod
    def quarantined(cls, clip_id: str, error: str, stat: FileStat | None = None, sha256: str = "") -> ClipFacts:
        """Return the facts of a clip without stored frames; ``stat`` and ``sha256`` are those of its file."""
        return cls(
            clip_id=clip_id,
            status=QUARANTINED,
            error=error,
            bytes=stat.bytes if stat else None,
            mtime_ns=stat.mtime_ns if stat else None,
            sha256=sha256,
        )

    @classmethod
    def fatal(cls, message: str) -> ClipFacts:
        """Return what a batch returns instead of its clips if the run cannot continue."""
        return cls(clip_id="", status=FATAL, error=message)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ClipFacts:
        """Read a row of the columns ``FACTS``, and of ``machine`` where there is such a column."""
        return cls(**{name: row[name] for name in FACTS.names}, machine=row.get("machine", ""))

    def to_row(self) -> dict[str, Any]:
        """Return the row of the columns ``FACTS``."""
        return {name: getattr(self, name) for name in FACTS.names}

    @property
    def is_ok(self) -> bool:
        """Whether the clip was decoded."""
        return self.status == OK

    @property
    def stat(self) -> FileStat | None:
        """State of the file that was read; None if it could not be read."""
        if self.bytes is None or self.mtime_ns is None:
            return None
        return FileStat(self.bytes, self.mtime_ns)
