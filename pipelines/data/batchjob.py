"""One batch of ingest, as it runs in a Ray worker: decode its clips, write its shards, leave its part.

The part (a small Parquet file, written after the shards it speaks of) is the checkpoint: a batch that has one
is done, whatever happens to the rest of the run.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.decode import DecodeSettings
from pipelines.data.folder import PARTS, SHARDS, file_sha256, write_whole
from pipelines.data.isolation import Decoded, IsolatedDecoder
from pipelines.data.manifest import FACTS
from pipelines.data.shardfile import Shard, ShardWriter
from vlmodels.errors import UserError

Facts = dict[str, Any]
FATAL = "fatal"
"""Status of the one row that a batch returns if the run cannot go on; never stored."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to decode."""

    clip_id: str
    path: str


def quarantined(clip_id: str, error: str, **known: Any) -> Facts:
    """Facts of a clip of which no frames are stored."""
    return {**dict.fromkeys(FACTS.names), "sha256": "", "decoder": "", "shard": "", **known} | {
        "clip_id": clip_id,
        "status": "quarantined",
        "error": error,
    }


def decode_batch(name: str, sources: Sequence[Source], out: Path, decoder: IsolatedDecoder) -> pa.Table:
    """Decode a batch into shard files and a part; return its facts (schema ``FACTS``).

    If the output cannot be written or no decoder can run, nothing half-written stays and one fatal row says why.
    """
    writer = ShardWriter(out / SHARDS, name)
    rows = []
    try:
        for source, decoded in zip(sources, decoder([source.path for source in sources]), strict=True):
            rows.append(_store(source, decoded, writer))
        write_part(out, name, rows, writer.close())
    except UserError as error:
        return _fatal(str(error))
    except OSError as error:
        return _fatal(f"cannot write to {out}: {error.strerror or error}; free some space or choose another --out")
    finally:
        writer.abort()
    return pa.Table.from_pylist(rows, schema=FACTS)


def _store(source: Source, decoded: Decoded, writer: ShardWriter) -> Facts:
    try:
        stat = os.stat(source.path)  # noqa: PTH116 - both numbers of one call
        found = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": file_sha256(source.path)}
    except OSError as error:
        return quarantined(source.clip_id, f"cannot be read: {error.strerror}")
    if decoded.info is None or decoded.frames is None:
        return quarantined(source.clip_id, decoded.error, **found)
    info = decoded.info
    shard, row = writer.add(source.clip_id, decoded.frames)
    return {
        "clip_id": source.clip_id,
        **found,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "n_frames": info.n_frames,
        "decoder": info.decoder,
        "status": "ok",
        "error": "",
        "shard": shard,
        "row": row,
    }


def _fatal(message: str) -> pa.Table:
    return pa.Table.from_pylist([quarantined("", message) | {"status": FATAL}], schema=FACTS)


def write_part(out: Path, name: str, rows: Sequence[Facts], shards: Sequence[Shard]) -> None:
    """Record that a batch is done."""
    entries = json.dumps([shard.to_json() for shard in shards])
    table = pa.Table.from_pylist(list(rows), schema=FACTS).replace_schema_metadata({"shards": entries})
    write_whole(out / PARTS / f"{name}.parquet", lambda path: pq.write_table(table, path))


def read_part(path: Path) -> tuple[list[Facts], list[Shard]]:
    """Return the facts and shards of a finished batch."""
    table = pq.read_table(path)
    shards = json.loads(table.schema.metadata[b"shards"])
    return table.to_pylist(), [Shard.from_json(entry) for entry in shards]


def decode_planned(plan: pa.Table, out: Path, settings: DecodeSettings, time_limit: float, decode: str) -> pa.Table:
    """Run one planned batch (a row ``name``, ``clip_ids``, ``paths``): the function that Ray Data maps."""
    (row,) = plan.to_pylist()
    sources = [Source(*pair) for pair in zip(row["clip_ids"], row["paths"], strict=True)]
    return decode_batch(row["name"], sources, out, worker_decoder(decode, settings, time_limit))


@functools.lru_cache(maxsize=1)
def worker_decoder(decode: str, settings: DecodeSettings, time_limit: float) -> IsolatedDecoder:
    """Return the decoder of this worker process, which all its batches share."""
    return IsolatedDecoder(decode, settings, settings.largest, time_limit)
