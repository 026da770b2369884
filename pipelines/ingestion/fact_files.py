"""Parquet files of facts, with what is needed to trust and use them alone: a hash, shards and settings.

The manifest and the parts are such files. What earlier versions wrote has neither hash nor settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingestion.clip_facts import ClipFacts
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard
from pipelines.storage.files import write_whole


class DamagedFileError(ValueError):
    """A file of facts that cannot be read."""


@dataclass(frozen=True, slots=True)
class FactFile:
    """What a file of facts holds.

    Attributes:
        facts: of clips.
        shards: in which they are; None in a manifest of an earlier version.
        settings: with which they were decoded; None in files of earlier versions.
    """

    facts: Sequence[ClipFacts]
    shards: Sequence[Shard] | None
    settings: Mapping[str, Any] | None = None


def write_facts(path: Path, table: pa.Table, shards: Sequence[Shard], settings: Mapping[str, Any] | None) -> None:
    """Write a table with the columns ``FACTS``, and maybe others, whole or not at all."""
    metadata = {"shards": json.dumps([shard.to_json() for shard in shards])}
    if settings is not None:
        metadata["settings"] = json.dumps(settings)
    metadata["sha256"] = _sha256(metadata, table.select(FACTS.names).to_pylist())
    table = table.replace_schema_metadata(metadata)
    write_whole(path, lambda part: pq.write_table(table, part))


def read_facts(path: Path) -> FactFile:
    """Read what ``write_facts`` wrote, now or in an earlier version.

    Raises:
        DamagedFileError: it cannot be read.
    """
    try:
        table = pq.read_table(path, columns=FACTS.names)
        rows = table.cast(FACTS).to_pylist()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        _check(metadata, rows)
        shards = json.loads(metadata["shards"]) if "shards" in metadata else None
        settings = json.loads(metadata["settings"]) if "settings" in metadata else None
        facts = [ClipFacts.from_row(row) for row in rows]
        return FactFile(facts, None if shards is None else [Shard.from_json(entry) for entry in shards], settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DamagedFileError(reason[0][:150]) from error


def _check(metadata: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    if "sha256" in metadata and metadata["sha256"] != _sha256(metadata, rows):
        raise ValueError("it has changed since it was written")


def _sha256(metadata: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    texts = [metadata[key] for key in ("shards", "settings") if key in metadata]
    return hashlib.sha256(json.dumps([texts, [list(row.values()) for row in rows]]).encode()).hexdigest()
