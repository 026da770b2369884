"""The folder of ingested data: the names of its files, and its index."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.shards.shard_file import Shard
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError
from vlmodels.sampling import Sampling, Starts

FORMAT = 1
INDEX = "index.json"
MANIFEST = "manifest.parquet"
SHARDS = "shards"
PARTS = ".parts"
"""Folder of the facts that finished batches found; it exists only while an ingest is unfinished."""


@dataclass(frozen=True, slots=True)
class FramePool:
    """Which frames are stored of each clip, segment by segment.

    Attributes:
        segments: T, the frames of one view.
        sampling: how the frames of a view are chosen.
        stride: frames between two of a dense view; 0 for segments.
        offsets: places inside each segment, or the ``Starts`` of dense views.
    """

    segments: int
    sampling: Sampling
    stride: int
    offsets: tuple[float, ...]

    @classmethod
    def from_json(cls, decode: Mapping[str, Any]) -> FramePool:
        """Read the decode settings that ``index.json`` records."""
        sampling: Sampling = decode.get("sampling", "segments")
        offsets = Starts(decode["starts"]) if sampling == "dense" else tuple(decode["offsets"])
        return cls(decode["segments"], sampling, decode.get("stride", 0), offsets)


@dataclass(frozen=True, slots=True)
class Index:
    """``index.json``: all that describes an ingested data set, except the rows of its manifest.

    Attributes:
        decode: settings that decided which frames are stored (``DecodeSettings.to_json``); ``pool`` reads them.
        root: folder or URI of the videos.
        classes: class names in label order.
        digest: identifies the content: settings, classes, labels, files.
    """

    decode: Mapping[str, Any]
    decode_digest: str
    root: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    digest: str
    manifest_sha256: str
    code_version: str

    @property
    def pool(self) -> FramePool:
        """Which frames are stored of each clip."""
        return FramePool.from_json(self.decode)

    @classmethod
    def read(cls, folder: Path) -> Index | None:
        """Return the index of ``folder``; None if it has none.

        Raises:
            UserError: it cannot be read, or has another format.
        """
        try:
            content = (folder / INDEX).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{folder / INDEX}: not readable as an index ({error})") from error
        return cls.parse(content, str(folder / INDEX))

    @classmethod
    def parse(cls, content: bytes, name: str) -> Index:
        """Return the index in ``content``, the text of the file that messages call ``name``.

        Raises:
            UserError: it is not JSON, or has another format.
        """
        try:
            plain = json.loads(content)
        except ValueError as error:
            raise UserError(f"{name}: not readable as an index ({error})") from error
        if plain.get("format") != FORMAT:
            raise UserError(
                f"{name}: format {plain.get('format')}, this version reads {FORMAT}; ingest again with --overwrite"
            )
        shards = tuple(Shard.from_json(entry) for entry in plain["shards"])
        return cls(
            decode=plain["decode"],
            decode_digest=plain["decode_digest"],
            root=plain["root"],
            classes=tuple(plain["classes"]),
            shards=shards,
            digest=plain["digest"],
            manifest_sha256=plain["manifest_sha256"],
            code_version=plain["code_version"],
        )

    def write(self, folder: Path) -> None:
        """Write the index, whole or not at all."""
        plain = {
            "format": FORMAT,
            "code_version": self.code_version,
            "decode": dict(self.decode),
            "decode_digest": self.decode_digest,
            "root": self.root,
            "classes": list(self.classes),
            "manifest_sha256": self.manifest_sha256,
            "shards": [shard.to_json() for shard in self.shards],
            "digest": self.digest,
        }
        write_whole(folder / INDEX, lambda path: path.write_text(json.dumps(plain, indent=1)))
