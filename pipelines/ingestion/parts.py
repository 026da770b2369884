"""Part files: the facts and shards of one finished batch.

A part is a small Parquet file, written after the shards that it lists. It is the checkpoint of an ingest: a batch that
has one is done, whatever happens to the rest of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingestion.clip_facts import ClipFacts
from pipelines.shards.index import PARTS
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard
from pipelines.storage.files import write_whole


@dataclass(frozen=True, slots=True)
class Part:
    """The facts of a batch's clips, and its shards."""

    facts: Sequence[ClipFacts]
    shards: Sequence[Shard]

    def write(self, folder: Path, name: str) -> None:
        """Write the part of the batch ``name`` into an ingested folder."""
        shards = json.dumps([shard.to_json() for shard in self.shards])
        table = to_table(self.facts).replace_schema_metadata({"shards": shards})
        write_whole(folder / PARTS / f"{name}.parquet", lambda path: pq.write_table(table, path))

    @classmethod
    def read(cls, path: Path) -> Part:
        """Read the part in a file."""
        table = pq.read_table(path)
        shards = json.loads(table.schema.metadata[b"shards"])
        facts = [ClipFacts.from_row(row) for row in table.to_pylist()]
        return cls(facts, [Shard.from_json(entry) for entry in shards])


def read_parts(folder: Path) -> Iterator[Part]:
    """Yield the parts in an ingested folder, in the order of their names."""
    for path in sorted((folder / PARTS).glob("*.parquet")):
        yield Part.read(path)


def to_table(facts: Sequence[ClipFacts]) -> pa.Table:
    """Return facts as a table of the columns ``FACTS``."""
    return pa.Table.from_pylist([one.to_row() for one in facts], schema=FACTS)
