"""Ingest: videos in; shards, manifest and index out. Does only what is missing; may be killed at any moment.

Ray Data runs over *batches of paths*: each task decodes its clips one by one into shard files and returns a
small table of facts, so no frame crosses the object store. The index is written last: a folder without one is an
unfinished ingest, which the same command completes. In a store it is the same (``pipelines.ingestion.destination``).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.ingestion.batches import RunBatches, plan_batches, run_on_ray
from pipelines.ingestion.claim import claimed
from pipelines.ingestion.clip_facts import ClipFacts, FileStat
from pipelines.ingestion.decode import DECODER, DecodeRequest, DecodeSettings
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.earlier import (
    SETTINGS,
    earlier_settings,
    has_other_rate,
    read_earlier,
    remove_shards,
    stats_of,
    still_valid,
)
from pipelines.ingestion.fact_files import write_facts
from pipelines.ingestion.parts import part_files
from pipelines.ingestion.whole_shards import whole_shards
from pipelines.shards.index import INDEX, MANIFEST, PARTS, Index
from pipelines.shards.manifest import SCHEMA
from pipelines.shards.shard_file import Shard
from pipelines.storage.files import file_sha256, write_whole
from pipelines.videos.inputs import Input, Inputs
from pipelines.videos.kept_lists import keep_lists
from vlmodels.errors import UserError
from vlmodels.span import Span


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        manifest: path or URI of the manifest.
        ok: clips that are stored.
        decoded: videos decoded now, or set aside now.
        kept: videos whose result an earlier ingest left, and videos that are missing.
        quarantined: uri of each video that was set aside, and the reason.
        digest: identifies the content.
        seconds: time it took.
        machines: address of each machine that decoded, and how many clips.
    """

    manifest: str
    ok: int
    decoded: int
    kept: int
    quarantined: tuple[tuple[str, str], ...]
    digest: str
    seconds: float
    machines: tuple[tuple[str, int], ...] = ()

    @property
    def total(self) -> int:
        """Number of input videos."""
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
    verify: bool = False,
    say: Callable[[str], None] = print,
    decode: str = DECODER,
    run_batches: RunBatches = run_on_ray,
) -> IngestReport:
    """Decode all videos into ``out`` and describe every one of them in its manifest.

    Args:
        inputs: the videos.
        out: the place of the result.
        settings: which frames are stored.
        workers: batches decoded at the same time; None for one on each CPU that Ray has, or may get.
        time_limit: seconds for each video.
        overwrite: remove what ``out`` holds, also if it was decoded with other settings.
        retry: try again the videos that an earlier ingest set aside. Others are kept if their file is unchanged.
        verify: read every shard again, also those that this machine has read before; what is damaged is made again.
        say: prints a line of progress.
        decode: ``module:function`` that decodes a video.
        run_batches: decodes planned batches.

    Raises:
        UserError: ``out`` cannot be written, or holds clips of other settings and not ``overwrite``; the
            decoder cannot run at all; no video at all could be decoded (the manifest then says why); a machine of
            the cluster does not see the same ``out`` or videos; another machine's ingest has taken over ``out``.
    """
    started = time.monotonic()
    request = DecodeRequest(settings, workers, time_limit, decode)
    with claimed(out if isinstance(out, Destination) else Destination(out)) as destination:
        _prepare(destination, settings, overwrite=overwrite, say=say)
        stats = stats_of(inputs)
        kept = _kept_facts(inputs, destination, stats, retry=retry, verify=verify, say=say)
        pending = [video for video in inputs.videos if video.clip_id not in kept]
        decoded: dict[str, ClipFacts] = {}
        if pending:
            batches = plan_batches(inputs, pending, stats, settings.digest, destination.token)
            decoded = {facts.clip_id: facts for facts in run_batches(batches, destination, request, say)}
        facts = kept | decoded
        digest = _finish(inputs, facts, destination, settings)
    return IngestReport(
        manifest=destination.address(MANIFEST),
        ok=sum(one.is_ok for one in facts.values()),
        decoded=len(pending),
        kept=len(kept),
        quarantined=_quarantined(inputs, facts, destination),
        digest=digest,
        seconds=time.monotonic() - started,
        machines=tuple(sorted(Counter(one.machine for one in facts.values() if one.machine).items())),
    )


# ---------------------------------------------------------------------------------------------- before decoding


def _prepare(
    destination: Destination, settings: DecodeSettings, *, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Get the folder, and the store, ready for clips of these settings."""
    destination.refresh()
    if overwrite:
        _empty_folder(destination.folder)
    _check_settings(destination.folder, settings, say)
    destination.take_over(say)
    if overwrite:
        destination.empty()
    destination.upload(f"{PARTS}/{SETTINGS}")


def _empty_folder(folder: Path) -> None:
    (folder / INDEX).unlink(missing_ok=True)  # first: from here on the folder is unfinished
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in (folder / PARTS).glob("*.*"):
        path.unlink()
    remove_shards(folder, set())


def _check_settings(folder: Path, settings: DecodeSettings, say: Callable[[str], None]) -> None:
    """Record the settings in the folder; refuse to mix them with others, and drop what has unknown ones."""
    wanted = settings.to_json()
    damaged: list[str] = []
    found = earlier_settings(folder, damaged)
    for line in damaged:
        say(f"{line}; it is written again")
    if found is None:
        if damaged:
            say("nothing says with which settings the videos were decoded: all are decoded again")
        for path in (folder / MANIFEST, *part_files(folder)):
            path.unlink(missing_ok=True)
    elif found != wanted:
        differences = ", ".join(
            f"{name} {found.get(name)} instead of {value}" for name, value in wanted.items() if found.get(name) != value
        )
        raise UserError(
            f"{folder} holds clips decoded with other settings ({differences}); "
            "choose another --out, or --overwrite to decode everything again"
        )
    write_whole(folder / PARTS / SETTINGS, lambda path: path.write_text(json.dumps(wanted)))


def _kept_facts(
    inputs: Inputs,
    destination: Destination,
    stats: Mapping[str, FileStat | None],
    *,
    retry: bool,
    verify: bool,
    say: Callable[[str], None],
) -> dict[str, ClipFacts]:
    """Return the facts, by clip, of videos that need no decoding: done earlier, or missing."""
    earlier = read_earlier(destination.folder)
    for line in earlier.damaged:
        if not line.startswith(str(destination.folder / INDEX)):  # that of the index is out already
            say(f"{line}; what it held is made again")
    kept = still_valid(earlier, stats, whole_shards(destination, earlier.shards, verify=verify, say=say), retry=retry)
    for video in inputs.videos:
        if not video.path:
            kept[video.clip_id] = ClipFacts.quarantined(video.clip_id, f"missing: {video.reason}")
        elif video.reason:
            kept[video.clip_id] = ClipFacts.quarantined(video.clip_id, video.reason)
        elif video.clip_id in kept and has_other_rate(inputs, video, kept[video.clip_id]):
            del kept[video.clip_id]
    return kept


# -------------------------------------------------------------------------------------------------- the result


def _finish(inputs: Inputs, facts: Mapping[str, ClipFacts], destination: Destination, settings: DecodeSettings) -> str:
    """Write manifest and index, then remove what they do not need; return the digest."""
    destination.fetch_parts()
    shards = read_earlier(destination.folder).shards
    folder = destination.folder
    rows = [_manifest_row(video, facts[video.clip_id]) for video in inputs.videos]
    keep_lists(folder, inputs.lists, inputs.dataset, inputs.times)
    used = [shards[name] for name in sorted({row["shard"] for row in rows} - {""})]
    write_facts(folder / MANIFEST, pa.Table.from_pylist(rows, schema=SCHEMA), used, settings.to_json())
    digest = _digest(rows, inputs.classes, settings)
    if used:
        _index(inputs, used, folder, settings, digest).write(folder)
    destination.publish(used)
    if used:
        remove_shards(folder, {shard.file for shard in used})
        for path in (*folder.glob(".*.tmp"), *(folder / PARTS).glob("*.*")):
            path.unlink(missing_ok=True)
    return digest


def _manifest_row(video: Input, facts: ClipFacts) -> dict[str, Any]:
    """Return a row of the columns ``SCHEMA``."""
    start, end = _seconds(video.span, facts.fps or 0.0) if video.span else (None, None)
    return {
        **facts.to_row(),
        "uri": video.uri,
        "path": video.path,
        "label": video.label,
        "group": video.group,
        "split": video.split,
        "start_s": start,
        "end_s": end,
    }


def _seconds(span: Span, fps: float) -> tuple[float | None, float | None]:
    """Return start and end of a part in seconds; of frames by the mean rate, if that is known."""
    if span.unit == "seconds":
        return span.start, span.end
    return (span.start / fps, span.end / fps) if fps else (None, None)


def _digest(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], settings: DecodeSettings) -> str:
    identity = ("clip_id", "label", "group", "split", "sha256", "n_frames", "status")  # every reader: the same frames
    content = [settings.to_json(), classes, [[row[name] for name in identity] for row in rows]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _index(inputs: Inputs, shards: Sequence[Shard], folder: Path, settings: DecodeSettings, digest: str) -> Index:
    return Index(
        decode=settings.to_json(),
        decode_digest=settings.digest,
        root=inputs.place,
        classes=inputs.classes,
        shards=tuple(shards),
        digest=digest,
        manifest_sha256=file_sha256(folder / MANIFEST),
        code_version=_code_version(),
    )


def _code_version() -> str:
    try:
        return version("vidadapt")
    except PackageNotFoundError:
        return "unknown"


def _quarantined(
    inputs: Inputs, facts: Mapping[str, ClipFacts], destination: Destination
) -> tuple[tuple[str, str], ...]:
    """Return uri and reason of each video that was set aside.

    Raises:
        UserError: all were.
    """
    bad = [(video.uri, facts[video.clip_id].error) for video in inputs.videos if not facts[video.clip_id].is_ok]
    if len(bad) == len(inputs.videos):
        reason, _ = Counter(reason for _, reason in bad).most_common(1)[0]
        raise UserError(
            f"none of the {len(bad)} videos could be decoded (most often: {reason}); "
            f"see {destination.address(MANIFEST)}"
        )
    return tuple(bad)
