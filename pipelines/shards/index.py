"""The folder that ingest leaves: the names in it, how its files come to be, and its index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.shards.shard_file import Shard
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError

FORMAT = 1
INDEX, MANIFEST, SHARDS = "index.json", "manifest.parquet", "shards"
PARTS = ".parts"
"""What finished batches found out; only there while an ingest is unfinished."""


@dataclass(frozen=True, slots=True)
class Index:
    """``index.json``: everything about an ingested data set but its rows."""

    decode: dict[str, Any]
    decode_digest: str
    root: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    digest: str
    manifest_sha256: str
    code_version: str

    @classmethod
    def read(cls, folder: Path) -> Index | None:
        """Return the index of ``folder``; None if it has none.

        Raises:
            UserError: if it was written by another format.
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
        """Return the index that a file holds, which messages call ``name``.

        Raises:
            UserError: if it was written by another format.
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
        names = ("decode", "decode_digest", "root", "digest", "manifest_sha256", "code_version")
        return cls(classes=tuple(plain["classes"]), shards=shards, **{name: plain[name] for name in names})

    def write(self, folder: Path) -> None:
        """Put the index in place, whole or not at all."""
        plain = {
            "format": FORMAT,
            "code_version": self.code_version,
            "decode": self.decode,
            "decode_digest": self.decode_digest,
            "root": self.root,
            "classes": list(self.classes),
            "manifest_sha256": self.manifest_sha256,
            "shards": [shard.to_json() for shard in self.shards],
            "digest": self.digest,
        }
        write_whole(folder / INDEX, lambda path: path.write_text(json.dumps(plain, indent=1)))
