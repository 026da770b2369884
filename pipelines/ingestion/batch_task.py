"""One batch of ingest, as it runs in a Ray worker: decode its clips, write its shards, leave its part.

The part (a small Parquet file, written after the shards it speaks of) is the checkpoint: a batch that has one
is done, whatever happens to the rest of the run.
"""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.cluster.node_facts import look
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.isolation import Decoded, IsolatedDecoder
from pipelines.shards.index import PARTS, SHARDS
from pipelines.shards.manifest import FACTS
from pipelines.shards.shard_file import Shard, ShardWriter
from pipelines.storage.files import file_sha256, write_whole
from pipelines.storage.place import is_uri
from pipelines.videos.remote import copies
from vlmodels.errors import UserError

Facts = dict[str, Any]
CLAIM = f"{PARTS}/lock"
"""Locked by the ingest that writes to the folder; its text tells the folder from one of the same name elsewhere."""
SHARE_OUT = "on several machines --out must be a shared folder or a store (s3://...)"
SHARE_VIDEOS = "on several machines videos must be in a shared folder or a store (--root s3://...)"
FATAL = "fatal"
"""Status of the one row that a batch returns if the run cannot go on; never stored."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to decode; of one in a store (``path`` is then below the videos' URI), bytes and time as listed."""

    clip_id: str
    path: str
    listed: tuple[int, int] | None = None


def quarantined(clip_id: str, error: str, **known: Any) -> Facts:
    """Facts of a clip of which no frames are stored."""
    return {**dict.fromkeys(FACTS.names), "sha256": "", "decoder": "", "shard": "", **known} | {
        "clip_id": clip_id,
        "status": "quarantined",
        "error": error,
    }


def decode_batch(
    name: str, sources: Sequence[Source], out: Path | Destination, decoder: IsolatedDecoder, videos: str = ""
) -> pa.Table:
    """Decode a batch into shard files and a part; return its facts (schema ``FACTS``).

    ``videos`` is the URI that sources are below, if they lie in a store. If the output cannot be written or no decoder
    can run, nothing half-written stays and one fatal row says why.
    """
    to = Destination.of(out)
    try:
        with to.workplace() as folder, _here(videos, sources) as paths:
            rows = []
            writer = ShardWriter(folder / SHARDS, name)
            try:
                for number, (source, decoded) in enumerate(zip(sources, decoder(paths), strict=True)):
                    rows.append(_store(source, paths[number], decoded, writer))
                write_part(folder, name, rows, writer.close())
            finally:
                writer.abort()
            to.deliver(folder)
    except UserError as error:
        return _fatal(f"{error} (on {socket.gethostname()})" if to.uri or videos else str(error))
    except OSError as error:
        return _fatal(to.unwritable(error, "free some space or choose another --out"))
    return pa.Table.from_pylist(rows, schema=FACTS)


def _here(videos: str, sources: Sequence[Source]) -> AbstractContextManager[Sequence[str]]:
    paths = [source.path for source in sources]
    return copies(videos, paths) if videos else nullcontext(paths)


def _store(source: Source, path: str, decoded: Decoded, writer: ShardWriter) -> Facts:
    try:
        stat = os.stat(path)  # noqa: PTH116 - both numbers of one call
        found = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": file_sha256(path)}
    except OSError as error:
        gone = "missing: it was in the store when the run began" if source.listed else ""
        return quarantined(source.clip_id, gone or f"cannot be read: {error.strerror}")
    if source.listed:
        Path(path).unlink()  # a copy, which has served
        if stat.st_size != source.listed[0]:
            return quarantined(source.clip_id, "cannot be read: it changed in the store while this ran")
        found["mtime_ns"] = source.listed[1]
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


def decode_planned(
    plan: pa.Table, out: Path | Destination, settings: DecodeSettings, time_limit: float, decode: str
) -> pa.Table:
    """Run one planned batch.

    The batch is a row ``name``, ``clip_ids``, ``paths``, ``listed`` (of each, where they are in a store), ``videos``
    (folder or URI that they are below) and ``token`` (what ``CLAIM`` in a folder ``out`` says, if it is the same).
    """
    (row,) = plan.to_pylist()
    to = Destination.of(out)
    claim = look(str(to.desk / CLAIM))
    if not to.uri and (claim is None or claim[1] != row["token"].encode()):
        return _fatal(f"{to.desk} is another folder on {socket.gethostname()}; {SHARE_OUT}")
    stored = row["videos"] if is_uri(row["videos"]) else ""
    if not stored and not Path(row["videos"]).is_dir():
        return _fatal(f"{row['videos']} is not on {socket.gethostname()}; {SHARE_VIDEOS}")
    sources = [Source(*pair) for pair in zip(row["clip_ids"], row["paths"], strict=True)]
    if stored:
        sources = [replace(source, listed=tuple(stat)) for source, stat in zip(sources, row["listed"], strict=True)]
    return decode_batch(row["name"], sources, to, worker_decoder(decode, settings, time_limit), stored)


def decode_on_ray(plan: pa.Table, *how: Any) -> pa.Table:
    """``decode_planned`` in a task of Ray's; a column ``machine`` tells the address of its machine."""
    import ray.util

    table = decode_planned(plan, *how)
    return table.append_column("machine", pa.repeat(ray.util.get_node_ip_address(), len(table)))


@functools.lru_cache(maxsize=1)
def worker_decoder(decode: str, settings: DecodeSettings, time_limit: float) -> IsolatedDecoder:
    """Return the decoder of this worker process, which all its batches share."""
    return IsolatedDecoder(decode, settings, settings.largest, time_limit)
