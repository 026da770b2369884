"""One batch of ingest, as it runs in a Ray worker: decode its clips, write its shards, leave its part."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.ingestion.batch import CHANGED, GONE, SHARE_VIDEOS, Batch, SourceFile, VideoSource, copy_problem
from pipelines.ingestion.claim import SHARE_OUT, has_claim
from pipelines.ingestion.clip_facts import OK, ClipFacts, FileStat
from pipelines.ingestion.decode import DecodeRequest
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.isolation import Decoded, IsolatedDecoder, worker_decoder
from pipelines.ingestion.parts import Part, to_table
from pipelines.shards.index import SHARDS
from pipelines.shards.shard_file import ShardWriter
from pipelines.storage.files import file_sha256
from vlmodels.errors import UserError
from vlmodels.readers import picture_folder
from vlmodels.video import VideoError


def decode_on_ray(rows: pa.Table, destination: Destination, request: DecodeRequest) -> pa.Table:
    """Run ``decode_row`` in a task of Ray's, and add a column ``machine``, the address of its machine."""
    import ray.util

    table = decode_row(rows, destination, request)
    return table.append_column("machine", pa.repeat(ray.util.get_node_ip_address(), len(table)))


def decode_row(rows: pa.Table, destination: Destination, request: DecodeRequest) -> pa.Table:
    """Decode the batch in a table of one row (``Batch.to_row``); return its facts (schema ``FACTS``)."""
    (row,) = rows.to_pylist()
    batch = Batch.from_row(row)
    problem = _missing_here(batch, destination)
    if problem:
        return to_table([ClipFacts.fatal(problem)])
    return to_table(decode_batch(batch, destination, worker_decoder(request), request.settings.to_json()))


def decode_batch(
    batch: Batch, destination: Destination, decoder: IsolatedDecoder, settings: Mapping[str, Any] | None = None
) -> list[ClipFacts]:
    """Decode a batch into shard files and a part, which records ``settings``; return the facts of its clips.

    If the output cannot be written or no decoder can run, no unfinished file stays, and the one fact that is returned
    is fatal and has the reason.
    """
    files = batch.files()
    try:
        with destination.work_folder() as folder, batch.local_files(files) as paths:
            writer = ShardWriter(folder / SHARDS, batch.name)
            decoded = decoder(paths, [file.cuts for file in files])
            try:
                facts = []
                for number, file in enumerate(files):
                    facts += _store(file, paths, number, decoded, writer)
                Part(facts, writer.close(), settings).write(folder, batch.name)
            finally:
                decoded.close()
                writer.abort()
            destination.upload_batch(folder)
    except UserError as error:
        where = f" (on {socket.gethostname()})" if destination.uri or batch.is_stored else ""
        return [ClipFacts.fatal(f"{error}{where}")]
    except OSError as error:
        return [ClipFacts.fatal(destination.unwritable(error, "free some space or choose another --out"))]
    return facts


def _missing_here(batch: Batch, destination: Destination) -> str:
    """Return which folder this machine lacks, and the remedy; "" if it has both."""
    if not destination.uri and not has_claim(destination.folder, batch.token):
        return f"{destination.folder} is another folder on {socket.gethostname()}; {SHARE_OUT}"
    if not batch.is_stored and not Path(batch.videos).is_dir():
        return f"{batch.videos} is not on {socket.gethostname()}; {SHARE_VIDEOS}"
    return ""


def _store(
    file: SourceFile, paths: Sequence[str], number: int, decoded: Iterator[Decoded], writer: ShardWriter
) -> list[ClipFacts]:
    """Add the decoded clips of a file to their shards; return their facts."""
    first = next(decoded)
    path = paths[number]
    listed = file.sources[0].listed
    clips = itertools.chain([first], itertools.islice(decoded, len(file.sources) - 1))
    problem = copy_problem(Path(path), listed) if listed else ""
    try:
        state = _FileState.read(path, listed) if not problem else None
    except VideoError as error:  # of a folder of pictures
        state, problem = None, error.cause
    except OSError as error:
        state, problem = None, f"cannot be read: {error.strerror}"
    try:
        return [_clip(source, one, state, problem, writer) for source, one in zip(file.sources, clips, strict=True)]
    finally:
        if listed:
            Path(path).unlink(missing_ok=True)  # the copy is no longer needed


@dataclass(frozen=True, slots=True)
class _FileState:
    """Size and time of a file, and the SHA-256 of its bytes."""

    stat: FileStat
    sha256: str

    @classmethod
    def read(cls, path: str, listed: FileStat | None) -> _FileState:
        """Read the state of a file; a stored one has the size and time that the store listed.

        Raises:
            OSError: it cannot be read.
            VideoError: it is a folder without pictures in order.
        """
        if Path(path).is_dir():
            return cls(FileStat(*picture_folder.state_of(path)), picture_folder.fingerprint(path))
        found = os.stat(path)  # noqa: PTH116 - both numbers of one call
        return cls(listed or FileStat(found.st_size, found.st_mtime_ns), file_sha256(path))


def _clip(
    source: VideoSource, decoded: Decoded, state: _FileState | None, problem: str, writer: ShardWriter
) -> ClipFacts:
    """Add a decoded clip to its shard; return its facts."""
    if problem == GONE:
        return ClipFacts.quarantined(source.clip_id, f"missing: {problem}")
    if state is None:
        cause = f"cannot be read: {problem}" if problem == CHANGED else problem
        return ClipFacts.quarantined(source.clip_id, cause)
    info = decoded.info
    if info is None or decoded.frames is None:
        return ClipFacts.quarantined(source.clip_id, decoded.error, state.stat, state.sha256)
    shard, row = writer.add(source.clip_id, decoded.frames)
    return ClipFacts(
        clip_id=source.clip_id,
        status=OK,
        bytes=state.stat.bytes,
        mtime_ns=state.stat.mtime_ns,
        sha256=state.sha256,
        width=info.width,
        height=info.height,
        fps=info.fps,
        n_frames=info.n_frames,
        decoder=info.decoder,
        shard=shard,
        row=row,
    )
