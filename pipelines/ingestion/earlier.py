"""What earlier ingests left in the same folder, and how much of it is still valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.ingestion.clip_facts import ClipFacts, FileStat
from pipelines.ingestion.destination import OUR_SHARD
from pipelines.ingestion.parts import read_parts
from pipelines.shards.index import MANIFEST, SHARDS, Index
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard
from pipelines.videos.inputs import Input, Inputs


@dataclass(frozen=True)
class Earlier:
    """Facts that earlier ingests found, by clip, and shards that they left, by name."""

    facts: dict[str, ClipFacts]
    shards: dict[str, Shard]


def read_earlier(folder: Path) -> Earlier:
    """Read manifest, index and parts in the folder of an ingest, finished or not."""
    facts: dict[str, ClipFacts] = {}
    shards: dict[str, Shard] = {}
    index = Index.read(folder)
    if (folder / MANIFEST).exists():
        rows = pq.read_table(folder / MANIFEST, columns=FACTS.names).to_pylist()
        facts = {row["clip_id"]: ClipFacts.from_row(row) for row in rows}
        # The manifest may be newer than the index (killed between the two): its shards are then in the parts.
        shards = {shard.file: shard for shard in index.shards} if index else {}
    for part in read_parts(folder):
        shards |= {shard.file: shard for shard in part.shards}
        facts |= {fact.clip_id: fact for fact in part.facts if _is_better(fact, facts.get(fact.clip_id))}
    return Earlier(facts, shards)


def _is_better(fact: ClipFacts, known: ClipFacts | None) -> bool:
    """Return whether a fact replaces the known one: all do, except failures on a file that decoded before."""
    return known is None or fact.is_ok or not known.is_ok or fact.stat != known.stat


def still_valid(
    earlier: Earlier, stats: Mapping[str, FileStat | None], shard_sizes: Mapping[str, int], *, retry: bool
) -> dict[str, ClipFacts]:
    """Return the earlier facts that need no new decoding, by clip.

    Args:
        earlier: what earlier ingests found.
        stats: of each clip, the state of its file now; None if there is no file.
        shard_sizes: bytes of the shard files that are there, by name.
        retry: whether to leave out clips that could not be decoded.
    """
    whole = {name for name, shard in earlier.shards.items() if shard_sizes.get(name) == shard.bytes}
    valid = {}
    for clip_id, stat in stats.items():
        facts = earlier.facts.get(clip_id)
        if facts is None or stat is None or facts.stat != stat:
            continue
        if (facts.is_ok and facts.shard in whole) or (not facts.is_ok and not retry):
            valid[clip_id] = facts
    return valid


def stat_of(inputs: Inputs, video: Input) -> FileStat | None:
    """Return size and time of change of a video's file; None if there is no file."""
    if not video.path:
        return None
    if inputs.store:
        return FileStat(*inputs.store.stats[video.path])
    try:
        stat = (inputs.root / video.path).stat()
    except OSError:
        return None
    return FileStat(stat.st_size, stat.st_mtime_ns)


def remove_shards(folder: Path, keep: set[str]) -> None:
    """Remove the shard files of an ingest, finished or not, whose names are not in ``keep``."""
    for path in (folder / SHARDS).iterdir():
        if OUR_SHARD.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
