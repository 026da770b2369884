"""The folder of ingested data: the names of its files, and its index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.shards.shard_file import Shard
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError
from vlmodels.paths import IMPOSSIBLE
from vlmodels.sampling import Sampling, Starts

FORMAT = 1
OWN_HASH = "sha256"
"""Key of the hash of all else in the index."""
INDEX = "index.json"
MANIFEST = "manifest.parquet"
SHARDS = "shards"
PARTS = ".parts"
"""Folder of the facts that finished batches found; it exists only while an ingest is unfinished."""


class DamagedIndexError(UserError):
    """An index that is none, or has changed since it was written; ingest makes another one."""


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
        hashed: whether the file has a hash of its own; those of earlier versions have none.
    """

    decode: Mapping[str, Any]
    decode_digest: str
    root: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    digest: str
    manifest_sha256: str
    code_version: str
    hashed: bool = True

    @property
    def pool(self) -> FramePool:
        """Which frames are stored of each clip."""
        return FramePool.from_json(self.decode)

    @classmethod
    def read(cls, folder: Path) -> Index | None:
        """Return the index of ``folder``; None if it has none.

        Raises:
            DamagedIndexError: it cannot be read, or is no index.
            UserError: it has another format.
        """
        try:
            content = (folder / INDEX).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in IMPOSSIBLE:
                return None
            raise DamagedIndexError(_damaged(str(folder / INDEX), str(error.strerror or error))) from error
        return cls.parse(content, str(folder / INDEX))

    @classmethod
    def parse(cls, content: bytes, name: str) -> Index:
        """Return the index in ``content``, the text of the file that messages call ``name``.

        Raises:
            DamagedIndexError: it is no index, or has changed since it was written.
            UserError: it has another format.
        """
        plain = _plain(content, name)
        if plain.get("format") != FORMAT:
            raise UserError(
                f"{name}: format {str(plain.get('format'))[:20]}, this version reads {FORMAT}; "
                "ingest again with --overwrite"
            )
        if problem := _problem(plain, content):
            raise DamagedIndexError(_damaged(name, problem))
        return cls(
            decode=plain["decode"],
            decode_digest=plain["decode_digest"],
            root=plain["root"],
            classes=tuple(plain["classes"]),
            shards=tuple(Shard.from_json(entry) for entry in plain["shards"]),
            digest=plain["digest"],
            manifest_sha256=plain["manifest_sha256"],
            code_version=plain["code_version"],
            hashed=OWN_HASH in plain,
        )

    def write(self, folder: Path) -> None:
        """Write the index, with its own hash, whole or not at all."""
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
        plain[OWN_HASH] = _hash_of(plain)
        write_whole(folder / INDEX, lambda path: path.write_text(json.dumps(plain, indent=1)))


def shards_listed(folder: Path) -> dict[str, Shard]:
    """Return, by name, the shards that a damaged index still lists; only files that fit their digests are whole."""
    from pipelines.shards import index_rules  # pydantic: late

    entries = _remains(folder).get("shards")
    sound = [entry for entry in entries if index_rules.is_shard(entry)] if isinstance(entries, list) else []
    return {entry["file"]: Shard.from_json(entry) for entry in sound}


def decode_listed(folder: Path) -> dict[str, Any] | None:
    """Return the decode settings that a damaged index still holds if they fit their digest."""
    remains = _remains(folder)
    decode = remains.get("decode")
    fits = isinstance(decode, dict) and _sha256(decode) == remains.get("decode_digest")
    return decode if fits else None


def _remains(folder: Path) -> dict[str, Any]:
    try:
        return _plain((folder / INDEX).read_bytes(), INDEX)
    except (OSError, DamagedIndexError):
        return {}


def _plain(content: bytes, name: str) -> dict[str, Any]:
    try:
        plain = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        zeros = bool(content) and not content.strip(b"\0")
        raise DamagedIndexError(_damaged(name, "it holds zeros" if zeros else str(error))) from error
    if not isinstance(plain, dict):
        raise DamagedIndexError(_damaged(name, f"it holds a {type(plain).__name__}, not an object"))
    return plain


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is not a finite number")


def _problem(plain: dict[str, Any], content: bytes) -> str:
    """Return why these values are no index; "" if they are one."""
    from pipelines.shards import index_rules  # pydantic: late

    if problem := index_rules.first_problem(content):
        return problem
    if _sha256(plain["decode"]) != plain["decode_digest"]:
        return "decode has changed since it was written"
    if OWN_HASH in plain and _hash_of(plain) != plain[OWN_HASH]:
        return "it has changed since it was written"
    return ""


def _hash_of(plain: Mapping[str, Any]) -> str:
    return _sha256({key: value for key, value in plain.items() if key != OWN_HASH})


def _sha256(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _damaged(name: str, problem: str) -> str:
    return f"{name} is damaged ({problem[:200]}); run the same pipelines/ingest.py command again"
