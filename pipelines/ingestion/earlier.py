"""What an earlier ingest of the same folder left, and whether it still holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.ingestion.batch_task import (
    Facts,
    read_part,
)
from pipelines.ingestion.destination import OUR_SHARD
from pipelines.shards.index import MANIFEST, PARTS, SHARDS, Index
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard
from pipelines.videos.inputs import Input, Inputs


@dataclass
class Known:
    """What earlier runs found out, by clip, and the shards that they left."""

    facts: dict[str, Facts] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)


def read_known(out: Path) -> Known:
    """Read what earlier ingests of the folder left: manifest, index and parts."""
    known = Known()
    index = Index.read(out)
    if (out / MANIFEST).exists():
        # The manifest may be newer than the index (killed between the two): its shards are then in the parts.
        known.facts = {row["clip_id"]: row for row in pq.read_table(out / MANIFEST, columns=FACTS.names).to_pylist()}
        known.shards = {shard.file: shard for shard in index.shards} if index else {}
    for path in sorted((out / PARTS).glob("*.parquet")):
        rows, shards = read_part(path)
        known.shards |= {shard.file: shard for shard in shards}
        for row in rows:
            before = known.facts.get(row["clip_id"])
            if before is None or is_ok(row) or not (_same(before, row) and is_ok(before)):
                known.facts[row["clip_id"]] = row
    return known


def still_true(known: Known, stats: dict[str, Any], sizes: dict[str, int], *, retry: bool) -> dict[str, Facts]:
    """Return the facts of clips whose file is unchanged and whose frames are where they should be."""
    whole = {name for name, shard in known.shards.items() if sizes.get(name) == shard.bytes}
    facts = {}
    for clip_id, stat in stats.items():
        row = known.facts.get(clip_id)
        if row is None or stat is None or not _same(row, stat):
            continue
        if row["shard"] in whole if is_ok(row) else not retry:
            facts[clip_id] = row
    return facts


def is_ok(row: Facts) -> bool:
    """Return whether the clip was decoded."""
    return bool(row["status"] == "ok")


def _same(one: Facts, other: Facts) -> bool:
    return (one["bytes"], one["mtime_ns"]) == (other["bytes"], other["mtime_ns"])


def stat_of(inputs: Inputs, video: Input) -> Facts | None:
    """Return size and time of a video's file; None if there is none."""
    if not video.path:
        return None
    if inputs.store:
        size, mtime_ns = inputs.store.stats[video.path]
        return {"bytes": size, "mtime_ns": mtime_ns}
    try:
        stat = (inputs.root / video.path).stat()
    except OSError:
        return None
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def remove_shards(out: Path, keep: set[str]) -> None:
    """Remove shard files of ours, whole or not, that nothing speaks of."""
    for path in (out / SHARDS).iterdir():
        if OUR_SHARD.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
