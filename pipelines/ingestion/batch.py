"""A batch of videos that one task decodes, as it travels to the machine that does so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.ingestion.clip_facts import FileStat
from pipelines.storage.place import is_uri
from pipelines.videos.remote import copies

SHARE_VIDEOS = "on several machines videos must be in a shared folder or a store (--root s3://...)"
GONE = "it was in the store when this began, and is gone"
CHANGED = "it changed in the store while this ran"


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A video to decode.

    Attributes:
        clip_id: name of its clip.
        path: below the folder or URI of the batch, or absolute.
        listed: size and time as the store listed them; None for a local file.
    """

    clip_id: str
    path: str
    listed: FileStat | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Videos that one task decodes.

    Attributes:
        name: of its shards and its part; the same videos in the same state give the same name.
        videos: folder or URI of the videos.
        sources: the videos.
        token: claim of the ingest (``pipelines.ingestion.claim``), which shows the task that it sees the same folder.
    """

    name: str
    videos: str
    sources: tuple[VideoSource, ...]
    token: str = ""

    @property
    def is_stored(self) -> bool:
        """Whether the videos lie in a store."""
        return is_uri(self.videos)

    def to_row(self) -> dict[str, Any]:
        """Return the row of a table that holds this batch."""
        listed = [source.listed for source in self.sources if source.listed]
        return {
            "name": self.name,
            "videos": self.videos,
            "token": self.token,
            "clip_ids": [source.clip_id for source in self.sources],
            "paths": [source.path for source in self.sources],
            "bytes": [stat.bytes for stat in listed],
            "mtimes_ns": [stat.mtime_ns for stat in listed],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Batch:
        """Read what ``to_row`` returned."""
        listed: list[FileStat | None] = [
            FileStat(size, mtime_ns) for size, mtime_ns in zip(row["bytes"], row["mtimes_ns"], strict=True)
        ]
        named = zip(row["clip_ids"], row["paths"], listed or [None] * len(row["paths"]), strict=True)
        return cls(row["name"], row["videos"], tuple(VideoSource(*source) for source in named), row["token"])

    @contextmanager
    def local_files(self) -> Iterator[Sequence[str]]:
        """Yield the paths of the videos on this machine; those of a store are fetched as they are asked for.

        Raises:
            UserError: (on asking) the store cannot be read.
            OSError: a copy cannot be written.
        """
        paths = [source.path for source in self.sources]
        if self.is_stored:
            with copies(self.videos, paths) as files:
                yield files
        else:
            yield [str(Path(self.videos, path)) for path in paths]


def copy_problem(copy: Path, listed: FileStat) -> str:
    """Return why the copy of a stored video is not the file that was listed: ``GONE``, ``CHANGED``, or "" if it is.

    A copy that cannot be looked at counts as ``GONE``: it is the trouble of one video, and not of its batch.
    """
    try:
        size = copy.stat().st_size
    except OSError:
        return GONE
    return "" if size == listed.bytes else CHANGED
