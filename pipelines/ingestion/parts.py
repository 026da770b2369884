"""Part files: the facts and shards of one finished batch.

A part is a small Parquet file, written after the shards that it lists. It is the checkpoint of an ingest: a batch that
has one is done, whatever happens to the rest of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.ingestion.clip_facts import ClipFacts
from pipelines.ingestion.fact_files import DamagedFileError, FactFile, read_facts, write_facts
from pipelines.shards.index import PARTS
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard


@dataclass(frozen=True, slots=True)
class Part:
    """The facts of a batch's clips, its shards, and the settings with which it was decoded."""

    facts: Sequence[ClipFacts]
    shards: Sequence[Shard]
    settings: Mapping[str, Any] | None = None

    def write(self, folder: Path, name: str) -> None:
        """Write the part of the batch ``name`` into an ingested folder."""
        write_facts(folder / PARTS / f"{name}.parquet", to_table(self.facts), self.shards, self.settings)


def part_files(folder: Path) -> list[Path]:
    """Return the part files in an ingested folder, in the order of their names."""
    return sorted((folder / PARTS).glob("*.parquet"))


def read_parts(folder: Path, damaged: list[str]) -> Iterator[FactFile]:
    """Yield what the parts in an ingested folder hold; those that cannot be read are named in ``damaged``."""
    for path in part_files(folder):
        try:
            yield read_facts(path)
        except DamagedFileError as error:
            damaged.append(f"{path} is damaged ({error})")


def to_table(facts: Sequence[ClipFacts]) -> pa.Table:
    """Return facts as a table of the columns ``FACTS``."""
    return pa.Table.from_pylist([one.to_row() for one in facts], schema=FACTS)
