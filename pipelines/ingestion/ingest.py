"""Ingest: videos in; shards, manifest and index out. Does only what is missing; may be killed at any moment.

Ray Data runs over *batches of paths*: each task decodes its clips one by one into shard files and returns a
small table of facts, so no frame crosses the object store. The index is written last: a folder without one is an
unfinished ingest, which the same command completes. In a store it is the same (``pipelines.ingestion.destination``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ingestion.batch_task import (
    CLAIM,
    Facts,
    quarantined,
)
from pipelines.ingestion.batches import (
    plan_batches,
    run_batches,
)
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.earlier import is_ok, read_known, remove_shards, stat_of, still_true
from pipelines.shards.index import INDEX, MANIFEST, PARTS, SHARDS, Index
from pipelines.shards.manifest import SCHEMA
from pipelines.shards.shard_file import Shard
from pipelines.storage.files import file_sha256, write_whole
from pipelines.videos.inputs import Inputs
from pipelines.videos.kept_lists import keep_lists
from vlmodels.errors import UserError

SETTINGS = "settings.json"
DECODE = "pipelines.ingestion.decode:decode_clip"


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: clips decoded now or kept from before, and those set aside with the reason."""

    manifest: str
    ok: int
    decoded: int
    kept: int
    quarantined: tuple[tuple[str, str], ...]  # (uri, reason)
    digest: str
    seconds: float
    machines: tuple[tuple[str, int], ...] = ()
    """Address of each machine that decoded, and how many clips."""

    @property
    def total(self) -> int:
        """All input videos."""
        return self.ok + len(self.quarantined)


def ingest(
    inputs: Inputs,
    out: Path | Destination,
    settings: DecodeSettings,
    *,
    workers: int | None = None,
    time_limit: float = 60.0,
    overwrite: bool = False,
    retry: bool = False,
    say: Callable[[str], None] = print,
    decode: str = DECODE,
) -> IngestReport:
    """Decode all videos into ``out`` and describe every one of them in its manifest.

    ``workers`` decode at the same time (default: one for each CPU that Ray has, or may get). Clips that an earlier run
    decoded, or failed on, are kept if their file is unchanged; ``retry`` tries the failed ones again.

    Raises:
        UserError: ``out`` cannot be written, or holds clips of other settings and not ``overwrite``; the
            decoder cannot run at all; no video at all could be decoded (the manifest then says why); a machine of
            the cluster has not the same ``out`` or videos; another machine's ingest has taken over ``out``.
    """
    started = time.monotonic()
    to = Destination.of(out)
    with _claimed(to) as token:
        to = replace(to, token=token)
        to.begin()
        _check_settings(to.desk, settings, overwrite=overwrite)
        to.claim(say)
        if overwrite:
            to.clear()
        to.put(f"{PARTS}/{SETTINGS}")
        known = read_known(to.desk)
        stats = {video.clip_id: stat_of(inputs, video) for video in inputs.videos}
        facts = still_true(known, stats, to.shard_sizes(), retry=retry)
        missing = [video for video in inputs.videos if video.clip_id not in facts]
        for video in [video for video in missing if not video.path]:
            facts[video.clip_id] = quarantined(video.clip_id, f"missing: {video.reason}")
        kept = len(facts)
        pending = [video for video in missing if video.path]
        if pending:
            plan = [batch | {"token": token} for batch in plan_batches(inputs, pending, stats, settings)]
            for row in run_batches(plan, to, settings, (workers, time_limit, decode), say):
                facts[row["clip_id"]] = row
        to.fetch_parts()
        known = read_known(to.desk)
        digest = _finish(inputs, facts, known.shards, to, settings)
    machines = Counter(row["machine"] for row in facts.values() if "machine" in row)
    bad = [(video.uri, facts[video.clip_id]["error"]) for video in inputs.videos if not is_ok(facts[video.clip_id])]
    if len(bad) == len(inputs.videos):
        reason, _ = Counter(reason for _, reason in bad).most_common(1)[0]
        manifest = to.name(MANIFEST)
        raise UserError(f"none of the {len(bad)} videos could be decoded (most often: {reason}); see {manifest}")
    return IngestReport(
        manifest=to.name(MANIFEST),
        ok=len(facts) - len(bad),
        decoded=len(pending),
        kept=kept,
        quarantined=tuple(bad),
        digest=digest,
        seconds=time.monotonic() - started,
        machines=tuple(sorted(machines.items())),
    )


# -------------------------------------------------------------------------------------- what is there already


@contextmanager
def _claimed(out: Path | Destination) -> Iterator[str]:
    """Make the folder, and keep other ingests out of it for as long as this process lives; yield what it is told by."""
    to, token = Destination.of(out), secrets.token_hex(8)
    out = to.desk
    try:
        (out / SHARDS).mkdir(parents=True, exist_ok=True)
        (out / PARTS).mkdir(exist_ok=True)
        lock = (out / CLAIM).open("a")
    except OSError as error:
        raise UserError(to.unwritable(error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another ingest is writing to {to}; wait for it or choose another --out") from None
        except OSError:
            pass  # a file system without locks
        try:
            lock.truncate(0)
            lock.write(token)
            lock.flush()
            os.fsync(lock.fileno())
            yield token
        except (ConnectionError, TimeoutError):
            raise  # of Ray, and not of this folder
        except OSError as error:
            raise UserError(to.unwritable(error)) from error
        finally:
            if [path.name for path in (out / PARTS).glob("*")] == ["lock"]:
                shutil.rmtree(out / PARTS, ignore_errors=True)


def _check_settings(out: Path, settings: DecodeSettings, *, overwrite: bool) -> None:
    """Refuse to mix settings in one folder; ``overwrite`` empties it first."""
    if overwrite:
        (out / INDEX).unlink(missing_ok=True)  # first: from here on the folder is unfinished
        (out / MANIFEST).unlink(missing_ok=True)
        for path in (out / PARTS).glob("*.*"):
            path.unlink()
        remove_shards(out, set())
    wanted = settings.to_json()
    index = Index.read(out)
    begun = out / PARTS / SETTINGS
    found = index.decode if index else json.loads(begun.read_text()) if begun.exists() else wanted
    if found != wanted:
        differences = ", ".join(
            f"{name} {found.get(name)} instead of {value}" for name, value in wanted.items() if found.get(name) != value
        )
        raise UserError(
            f"{out} holds clips decoded with other settings ({differences}); "
            "choose another --out, or --overwrite to decode everything again"
        )
    write_whole(begun, lambda path: path.write_text(json.dumps(wanted)))


# -------------------------------------------------------------------------------------------------- the result


def _finish(
    inputs: Inputs, facts: dict[str, Facts], shards: dict[str, Shard], to: Destination, settings: DecodeSettings
) -> str:
    """Write manifest and index, then remove what they do not need; return the digest."""
    out = to.desk
    rows = []
    for video in inputs.videos:
        own = {"uri": video.uri, "path": video.path, "label": video.label, "group": video.group, "split": video.split}
        rows.append({**facts[video.clip_id], **own, "start_s": None, "end_s": None})
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    keep_lists(out, inputs.lists, inputs.dataset)
    write_whole(out / MANIFEST, lambda path: pq.write_table(table, path))
    used = sorted({row["shard"] for row in rows} - {""})
    identity = ("clip_id", "label", "group", "split", "sha256", "decoder", "n_frames", "status")
    content = [settings.to_json(), inputs.classes, [[row[name] for name in identity] for row in rows]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    if used:
        Index(
            decode=settings.to_json(),
            decode_digest=settings.digest,
            root=inputs.place,
            classes=inputs.classes,
            shards=tuple(shards[name] for name in used),
            digest=digest,
            manifest_sha256=file_sha256(out / MANIFEST),
            code_version=_code_version(),
        ).write(out)
    to.publish([shards[name] for name in used])
    if used:
        remove_shards(out, set(used))
        for path in (*out.glob(".*.tmp"), *(out / PARTS).glob("*.*")):
            path.unlink(missing_ok=True)
    return digest


def _code_version() -> str:
    try:
        return version("vidadapt")
    except PackageNotFoundError:
        return "unknown"
