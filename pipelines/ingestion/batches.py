"""Planned videos in batches, decoded by Ray Data."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.cluster.ask_nodes import blind_nodes
from pipelines.cluster.capacity import can_grow, most_places
from pipelines.config.schema import ScaleConfig
from pipelines.ingestion.batch_task import (
    CLAIM,
    FATAL,
    SHARE_OUT,
    SHARE_VIDEOS,
    Facts,
    decode_on_ray,
)
from pipelines.ingestion.decode import DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.earlier import is_ok, read_known, remove_shards
from pipelines.storage.place import is_uri
from pipelines.videos.inputs import Input, Inputs
from vlmodels.errors import UserError

LARGEST_BATCH, SMALLEST_BATCH, BATCHES = 64, 8, 32
SAY_EVERY_S = 3.0


# ----------------------------------------------------------------------------------------------------- the run


def plan_batches(
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


def run_batches(
    plan: Sequence[dict[str, Any]],
    to: Destination,
    settings: DecodeSettings,
    how: tuple[int | None, float, str],
    say: Callable[[str], None],
) -> Iterator[Facts]:
    """Decode planned batches on Ray, and yield the facts of each clip."""
    import ray

    from pipelines.cluster.session import connect

    workers, time_limit, decode = how
    connect()
    check_machines(plan, to.resolve())
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
            remove_shards(to.desk, set(read_known(to.desk).shards))
            raise UserError(fatal)
        yield from rows
        done += len(rows)
        bad += sum(not is_ok(row) for row in rows)
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


def check_machines(
    plan: Sequence[dict[str, Any]],
    to: Destination,
    blind_nodes: Callable[[Sequence[str]], list[list[str]]] = blind_nodes,
) -> None:
    """Refuse a cluster of which a machine has not the same folder, or not the videos."""
    first = plan[0]
    videos = [] if is_uri(first["videos"]) else first["paths"][:1]
    claim = [] if to.uri else [str(to.desk / CLAIM)]
    for path, nodes in zip([*claim, *videos], blind_nodes([*claim, *videos]), strict=True):
        if nodes and path in claim:
            raise UserError(f"{to.desk} is not the same folder on {', '.join(nodes)}; {SHARE_OUT}")
        if nodes:
            raise UserError(f"{path} is not there, or another file, on {', '.join(nodes)}; {SHARE_VIDEOS}")
