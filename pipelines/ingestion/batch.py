"""A batch of videos that one task decodes, as it travels to the machine that does so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.ingestion.clip_facts import FileStat
from pipelines.storage.place import is_uri
from pipelines.videos.remote import copies
from vlmodels.span import Cuts, Span, split_name

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
        span: the part of the video; None for all of it.
        fps: frames per second of a frame folder, if the user says them; else 0.
    """

    clip_id: str
    path: str
    listed: FileStat | None = None
    span: Span | None = None
    fps: float = 0.0

    @property
    def name(self) -> str:
        """The path, with the span behind it."""
        return self.span.after(self.path) if self.span else self.path


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file or frame folder to decode, and the clips that are made of it.

    Attributes:
        sources: at least one, all of the same path.
    """

    sources: tuple[VideoSource, ...]

    @property
    def path(self) -> str:
        """Path of the file, below the folder or URI of the batch, or absolute."""
        return self.sources[0].path

    @property
    def cuts(self) -> Cuts | None:
        """What to cut from it; None if it is one clip, whole."""
        first = self.sources[0]
        if len(self.sources) == 1 and first.span is None and not first.fps:
            return None
        return Cuts(tuple(source.span for source in self.sources), first.fps)


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
            "spans": ["" if source.span is None else source.name for source in self.sources],
            "fps": [source.fps for source in self.sources],
            "bytes": [stat.bytes for stat in listed],
            "mtimes_ns": [stat.mtime_ns for stat in listed],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Batch:
        """Read what ``to_row`` returned."""
        listed: list[FileStat | None] = [
            FileStat(size, mtime_ns) for size, mtime_ns in zip(row["bytes"], row["mtimes_ns"], strict=True)
        ]
        spans = [split_name(name)[1] for name in row["spans"]]
        listed = listed or [None] * len(row["paths"])
        named = zip(row["clip_ids"], row["paths"], listed, spans, row["fps"], strict=True)
        return cls(row["name"], row["videos"], tuple(VideoSource(*source) for source in named), row["token"])

    def files(self) -> list[SourceFile]:
        """Return the files of the videos, in order; parts of one file that follow each other are together."""
        same = itertools.groupby(self.sources, key=lambda source: (source.path, source.fps) if source.span else source)
        return [SourceFile(tuple(sources)) for _, sources in same]

    @contextmanager
    def local_files(self, wanted: Sequence[SourceFile]) -> Iterator[Sequence[str]]:
        """Yield the paths of files on this machine; those of a store are fetched as they are asked for.

        Raises:
            UserError: (on asking) the store cannot be read.
            OSError: a copy cannot be written.
        """
        paths = [file.path for file in wanted]
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
