"""What earlier ingests left in the same folder, and how much of it is still valid."""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.ingestion.clip_facts import ClipFacts, FileStat
from pipelines.ingestion.destination import OUR_SHARD
from pipelines.ingestion.fact_files import DamagedFileError, FactFile, read_facts
from pipelines.ingestion.parts import part_files, read_parts
from pipelines.shards.index import (
    INDEX,
    MANIFEST,
    PARTS,
    SHARDS,
    DamagedIndexError,
    Index,
    decode_listed,
    shards_listed,
)
from pipelines.shards.integrity import check_content
from pipelines.shards.shard_file import Shard
from pipelines.storage.digests import KnownDigests
from pipelines.storage.files import file_sha256
from pipelines.videos.inputs import Input, Inputs
from vlmodels.readers import picture_folder
from vlmodels.video import VideoError

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Earlier:
    """Facts that earlier ingests found, by clip, shards that they left, by name, and a line for each damaged file."""

    facts: dict[str, ClipFacts]
    shards: dict[str, Shard]
    damaged: tuple[str, ...] = ()


def read_earlier(folder: Path) -> Earlier:
    """Read manifest, index and parts in the folder of an ingest, finished or not; what is damaged is passed over."""
    damaged: list[str] = []
    facts: dict[str, ClipFacts] = {}
    shards: dict[str, Shard] = {}
    index = read_index(folder, damaged)
    if (manifest := _read_manifest(folder, index, damaged)) is not None:
        facts = {one.clip_id: one for one in manifest.facts}
        # The manifest may be newer than the index (killed between the two): its shards are then in the parts.
        shards = {shard.file: shard for shard in index.shards} if index else shards_listed(folder)
        shards |= {shard.file: shard for shard in manifest.shards or ()}
    for part in read_parts(folder, damaged):
        shards |= {shard.file: shard for shard in part.shards or ()}
        facts |= {fact.clip_id: fact for fact in part.facts if _is_better(fact, facts.get(fact.clip_id))}
    return Earlier(facts, shards, tuple(damaged))


def read_index(folder: Path, damaged: list[str]) -> Index | None:
    """Return the index of ``folder``; None, with a line in ``damaged``, if it is damaged, or if there is none."""
    try:
        return Index.read(folder)
    except DamagedIndexError as error:
        damaged.append(str(error).rpartition(";")[0])
        return None


def _read_manifest(folder: Path, index: Index | None, damaged: list[str]) -> FactFile | None:
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = read_facts(path)
    except DamagedFileError as error:
        damaged.append(f"{path} is damaged ({error})")
        return None
    foreign = index and manifest.shards and not any((folder / SHARDS / one.file).exists() for one in manifest.shards)
    if foreign and index and file_sha256(path) != index.manifest_sha256:
        damaged.append(f"{path} is of another ingest (it names other shards)")
        return None
    # Without a hash of its own it is known by its hash, unless an ingest was cut off before it wrote the index.
    if manifest.shards is None and index and not part_files(folder) and file_sha256(path) != index.manifest_sha256:
        damaged.append(f"{path} is damaged (its SHA-256 is not that of {INDEX})")
        return None
    return manifest


def earlier_settings(folder: Path, damaged: list[str]) -> Mapping[str, Any] | None:
    """Return the settings with which the clips in a folder were decoded; None if nothing says so."""
    if index := read_index(folder, damaged):
        damaged += filter(None, [_other_content(folder, index)])
        return index.decode
    unfinished = _unfinished_settings(folder, damaged)
    for path in (folder / MANIFEST, *part_files(folder)):
        with contextlib.suppress(DamagedFileError):
            if path.exists() and (settings := read_facts(path).settings):
                return settings
    return unfinished if unfinished is not None else decode_listed(folder)


def _other_content(folder: Path, index: Index) -> str:
    """Return what is wrong with an index without a hash of its own whose manifest is whole; "" if it fits."""
    path = folder / MANIFEST
    if index.hashed or not path.exists() or file_sha256(path) != index.manifest_sha256:
        return ""
    return check_content(index, pq.read_table(path), folder, KnownDigests(folder))


def _unfinished_settings(folder: Path, damaged: list[str]) -> Mapping[str, Any] | None:
    path = folder / PARTS / SETTINGS
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        settings = str(error)
    if isinstance(settings, dict) and settings.get("segments"):
        return settings
    damaged.append(f"{path} is damaged")
    return None


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
        shard_sizes: bytes of the shard files that are there and not known to be damaged, by name.
        retry: whether to leave out clips that could not be decoded.
    """
    whole = {name for name, shard in earlier.shards.items() if shard_sizes.get(name) == shard.bytes}
    valid = {}
    for clip_id, now in stats.items():
        facts = earlier.facts.get(clip_id)
        if facts is None or now is None or facts.stat != now:
            continue
        if (facts.is_ok and facts.shard in whole) or (not facts.is_ok and not retry):
            valid[clip_id] = facts
    return valid


def stats_of(inputs: Inputs) -> dict[str, FileStat | None]:
    """Return size and time of change of each video's file, by clip; None if there is no file."""
    known: dict[str, FileStat | None] = {}
    found = {}
    for video in inputs.videos:
        if video.span is None:
            found[video.clip_id] = _stat_of(inputs, video.path)
        else:
            if video.path not in known:
                known[video.path] = _stat_of(inputs, video.path)
            found[video.clip_id] = known[video.path]
    return found


def _stat_of(inputs: Inputs, path: str) -> FileStat | None:
    if not path:
        return None
    if inputs.store:
        return FileStat(*inputs.store.stats[path])
    try:
        found = (inputs.root / path).stat()
        if stat.S_ISDIR(found.st_mode):
            return FileStat(*picture_folder.state_of(inputs.root / path))
    except (OSError, VideoError):
        return None
    return FileStat(found.st_size, found.st_mtime_ns)


def rate_of(inputs: Inputs, video: Input) -> float:
    """Return the frames per second that the user says, if the video is a frame folder; else 0."""
    return video.fps if video.fps and not inputs.store and (inputs.root / video.path).is_dir() else 0.0


def has_other_rate(inputs: Inputs, video: Input, facts: ClipFacts) -> bool:
    """Return whether a frame folder was decoded, or set aside, with other frames per second than the user says now."""
    rate = rate_of(inputs, video)
    return bool(rate) and facts.fps != rate


def remove_shards(folder: Path, keep: set[str]) -> None:
    """Remove the shard files of an ingest, finished or not, whose names are not in ``keep``."""
    for path in (folder / SHARDS).iterdir():
        if OUR_SHARD.fullmatch(path.name) and path.name not in keep:
            path.unlink(missing_ok=True)
