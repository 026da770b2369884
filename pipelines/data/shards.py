"""Ingest: videos in; shards, manifest and index out. Does only what is missing; may be killed at any moment.

Ray Data runs over *batches of paths*: each task decodes its clips one by one into shard files and returns a
small table of facts, so no frame crosses the object store. The index is written last: a folder without one is an
unfinished ingest, which the same command completes. In a store it is the same (``pipelines.data.destination``).
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ask_nodes import blind_nodes
from pipelines.config import ScaleConfig
from pipelines.data.batchjob import CLAIM, FATAL, SHARE_OUT, SHARE_VIDEOS, Facts, decode_on_ray, quarantined, read_part
from pipelines.data.decode import DecodeSettings
from pipelines.data.destination import OUR_SHARD, Destination
from pipelines.data.folder import INDEX, MANIFEST, PARTS, SHARDS, Index, file_sha256, write_whole
from pipelines.data.inputs import Input, Inputs
from pipelines.data.keptlists import keep_lists
from pipelines.data.manifest import FACTS, SCHEMA
from pipelines.data.shardfile import Shard
from pipelines.room import can_grow, most_places
from pipelines.storage import is_uri
from vlmodels.errors import UserError

LARGEST_BATCH, SMALLEST_BATCH, BATCHES = 64, 8, 32
SETTINGS = "settings.json"
SAY_EVERY_S = 3.0
DECODE = "pipelines.data.decode:decode_clip"


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


@dataclass
class _Known:
    """What earlier runs found out, by clip, and the shards that they left."""

    facts: dict[str, Facts] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)


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
        known = _known(to.desk)
        stats = {video.clip_id: _stat(inputs, video) for video in inputs.videos}
        facts = _still_true(known, stats, to.shard_sizes(), retry=retry)
        missing = [video for video in inputs.videos if video.clip_id not in facts]
        for video in [video for video in missing if not video.path]:
            facts[video.clip_id] = quarantined(video.clip_id, f"missing: {video.reason}")
        kept = len(facts)
        pending = [video for video in missing if video.path]
        if pending:
            plan = [batch | {"token": token} for batch in _batches(inputs, pending, stats, settings)]
            for row in _run(plan, to, settings, (workers, time_limit, decode), say):
                facts[row["clip_id"]] = row
        to.fetch_parts()
        known = _known(to.desk)
        digest = _finish(inputs, facts, known.shards, to, settings)
    machines = Counter(row["machine"] for row in facts.values() if "machine" in row)
    bad = [(video.uri, facts[video.clip_id]["error"]) for video in inputs.videos if not _is_ok(facts[video.clip_id])]
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
        _sweep(out, set())
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


def _known(out: Path) -> _Known:
    known = _Known()
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
            if before is None or _is_ok(row) or not (_same(before, row) and _is_ok(before)):
                known.facts[row["clip_id"]] = row
    return known


def _still_true(known: _Known, stats: dict[str, Any], sizes: dict[str, int], *, retry: bool) -> dict[str, Facts]:
    """Return the facts of clips whose file is unchanged and whose frames are where they should be."""
    whole = {name for name, shard in known.shards.items() if sizes.get(name) == shard.bytes}
    facts = {}
    for clip_id, stat in stats.items():
        row = known.facts.get(clip_id)
        if row is None or stat is None or not _same(row, stat):
            continue
        if row["shard"] in whole if _is_ok(row) else not retry:
            facts[clip_id] = row
    return facts


def _is_ok(row: Facts) -> bool:
    return bool(row["status"] == "ok")


def _same(one: Facts, other: Facts) -> bool:
    return (one["bytes"], one["mtime_ns"]) == (other["bytes"], other["mtime_ns"])


def _stat(inputs: Inputs, video: Input) -> Facts | None:
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


# ----------------------------------------------------------------------------------------------------- the run


def _batches(
    inputs: Inputs, pending: Sequence[Input], stats: dict[str, Any], settings: DecodeSettings
) -> list[dict[str, Any]]:
    """Cut the work into batches whose names tell what is in them: the same work gets the same files."""
    store = inputs.store
    size = max(SMALLEST_BATCH, min(LARGEST_BATCH, len(inputs.videos) // BATCHES))
    plan = []
    for start in range(0, len(pending), size):
        videos = pending[start : start + size]
        content = [settings.digest, [(video.uri, video.path, stats[video.clip_id]) for video in videos]]
        plan.append(
            {
                "name": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
                "clip_ids": [video.clip_id for video in videos],
                "paths": [video.path if store else str(inputs.root / video.path) for video in videos],
                "videos": store.where if store else str(inputs.root),
                "listed": [store.stats[video.path] for video in videos] if store else [],
            }
        )
    return plan


def _run(
    plan: Sequence[dict[str, Any]],
    to: Destination,
    settings: DecodeSettings,
    how: tuple[int | None, float, str],
    say: Callable[[str], None],
) -> Iterator[Facts]:
    import ray

    from pipelines.ray_session import connect

    workers, time_limit, decode = how
    connect()
    _check_machines(plan, to.resolve())
    workers, waiting = _at_a_time(workers, len(plan))
    clips = sum(len(batch["paths"]) for batch in plan)
    say(f"decoding {clips} clips in {len(plan)} batches with {workers} workers{waiting}")
    facts = ray.data.from_items(list(plan), override_num_blocks=len(plan)).map_batches(
        decode_on_ray,
        fn_args=(to.resolve(), settings, time_limit, decode),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=1,
    )
    done = bad = warm = 0
    started = said = time.monotonic()
    for table in facts.iter_batches(batch_size=None, batch_format="pyarrow"):
        rows = table.to_pylist()
        fatal = next((row["error"] for row in rows if row["status"] == FATAL), None)
        if fatal is not None:
            _sweep(to.desk, set(_known(to.desk).shards))
            raise UserError(fatal)
        yield from rows
        done += len(rows)
        bad += sum(not _is_ok(row) for row in rows)
        now = time.monotonic()
        if not warm:  # the first batch waited for Ray's workers to start
            warm, started = done, now
        elif now - said > SAY_EVERY_S or done == clips:
            rate = f", {(done - warm) / (now - started):.1f} clips/s" if now - started > 1 else ""
            say(f"{done}/{clips} clips{rate}, {bad} quarantined")
            said = now


def _at_a_time(wanted: int | None, batches: int) -> tuple[int, str]:
    """How many batches are decoded at the same time, and what they wait for.

    Where machines may still come, what is up now is no limit.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    up = cpus = sum(int(node["Resources"].get("CPU", 0)) for node in nodes)
    if can_grow(len(nodes)):
        limit = most_places(ScaleConfig(), nodes)
        cpus = max(up, batches if limit is None else limit)
    if not cpus:
        raise UserError(f"Ray has no CPU to decode with ({len(nodes)} machines, see 'ray status'); add machines")
    return min(wanted or cpus, cpus, batches), "" if up else ", which wait for machines that the autoscaler may start"


def _check_machines(plan: Sequence[dict[str, Any]], to: Destination) -> None:
    """Refuse a cluster of which a machine has not the same folder, or not the videos."""
    first = plan[0]
    videos = [] if is_uri(first["videos"]) else first["paths"][:1]
    claim = [] if to.uri else [str(to.desk / CLAIM)]
    for path, nodes in zip([*claim, *videos], blind_nodes([*claim, *videos]), strict=True):
        if nodes and path in claim:
            raise UserError(f"{to.desk} is not the same folder on {', '.join(nodes)}; {SHARE_OUT}")
        if nodes:
            raise UserError(f"{path} is not there, or another file, on {', '.join(nodes)}; {SHARE_VIDEOS}")


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
        _sweep(out, set(used))
        for path in (*out.glob(".*.tmp"), *(out / PARTS).glob("*.*")):
            path.unlink(missing_ok=True)
    return digest


def _sweep(out: Path, keep: set[str]) -> None:
    """Remove shard files of ours, whole or not, that nothing speaks of."""
    for path in (out / SHARDS).iterdir():
        if OUR_SHARD.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)


def _code_version() -> str:
    try:
        return version("vidadapt")
    except PackageNotFoundError:
        return "unknown"
