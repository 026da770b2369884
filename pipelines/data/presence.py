"""What is there of a data set before anything trains: each listed video is present, renamed, missing or corrupt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipelines.data.inputs import Input, Inputs
from pipelines.data.locate import difference
from vlmodels.errors import UserError

Status = Literal["present", "renamed", "missing", "corrupt"]
STATUSES: tuple[Status, ...] = ("present", "renamed", "missing", "corrupt")
THREADS = 16
"""Reading the first bytes of files waits for the disk, on network disks for milliseconds."""
BATCH = 32
DECODE = "pipelines.data.decode:decode_clip"


@dataclass(frozen=True, slots=True)
class Checked:
    """A listed video: what became of it, and for all but the present ones the reason."""

    video: Input
    status: Status
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can be trained on or scored."""
        return self.status in {"present", "renamed"}


@dataclass(frozen=True)
class Presence:
    """Every listed video, and the videos below the root that no list names.

    Attributes:
        videos: in the order of the inputs.
        extra: paths below the root.
        splits: names of lists and split folders; "" stands for videos that are in none.
    """

    videos: tuple[Checked, ...]
    extra: tuple[str, ...]
    splits: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, Counter[str]]:
        """Number of videos by status, of each split."""
        found: dict[str, Counter[str]] = {name: Counter() for name in self.splits}
        for checked in self.videos:
            for name in checked.video.split.split("|"):
                found[name][checked.status] += 1
        return found

    def class_counts(self, split: str | None = None) -> dict[str, Counter[str]]:
        """Number of videos by status, of each class (in one split)."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for checked in self.videos:
            if split is None or split in checked.video.split.split("|"):
                found[checked.video.label][checked.status] += 1
        return dict(found)

    @property
    def complete(self) -> bool:
        """Whether every listed video is there and whole, be it under another name."""
        return all(checked.usable for checked in self.videos)


def check(inputs: Inputs, *, broken: Mapping[str, str] | None = None) -> Presence:
    """Sort the videos of ``inputs`` (found with ``scan``) by what became of them.

    Args:
        inputs: what is listed and where it was found.
        broken: why files cannot be used, by path below the root.
    """
    broken = broken or {}
    checked = []
    for video in inputs.videos:
        other = difference(video.uri, video.path) if video.path else ""
        if not video.path:
            checked.append(Checked(video, "missing", video.reason))
        elif video.path in broken:
            checked.append(Checked(video, "corrupt", broken[video.path]))
        elif other:
            checked.append(Checked(video, "renamed", f"other {other}: {video.path}"))
        else:
            checked.append(Checked(video, "present"))
    used = {video.path for video in inputs.videos}
    names = dict.fromkeys(one.name for one in inputs.lists)
    names |= dict.fromkeys(sorted({name for video in inputs.videos for name in video.split.split("|")}))
    return Presence(tuple(checked), tuple(sorted(inputs.files - used)), tuple(names))


def first_bytes(inputs: Inputs) -> dict[str, str]:
    """Return the files that are no videos by their first bytes (empty, zeros, a web page), with the reason."""
    paths = sorted({video.path for video in inputs.videos if video.path})
    with ThreadPoolExecutor(THREADS) as threads:
        reasons = threads.map(partial(_no_video, inputs.root), paths)
        return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _no_video(root: Path, path: str) -> str | None:
    from vlmodels.video import impostor

    try:
        return impostor(root / path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def undecodable(
    inputs: Inputs, *, workers: int | None = None, time_limit: float = 60.0, say: Callable[[str], None] = print
) -> dict[str, str]:
    """Decode every file as ingest would, in child processes on all CPUs that Ray has; return the bad ones.

    Raises:
        UserError: the decoder cannot run at all.
    """
    import ray

    from pipelines.ray_session import connect

    paths = sorted({video.path for video in inputs.videos if video.path})
    plan = [{"paths": paths[start : start + BATCH]} for start in range(0, len(paths), BATCH)]
    connect()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    say(f"decoding {len(paths)} videos")
    results = ray.data.from_items(plan, override_num_blocks=len(plan)).map_batches(
        _decode_planned,
        fn_args=(inputs.root, time_limit),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=min(workers or cpus, cpus, len(plan)),
        num_cpus=1,
    )
    bad: dict[str, str] = {}
    done = 0
    for table in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in table.to_pylist():
            if not row["path"]:
                raise UserError(row["error"])
            done += 1
            if row["error"]:
                bad[row["path"]] = row["error"]
        if done * 10 // len(paths) != (done - len(table)) * 10 // len(paths):
            say(f"{done}/{len(paths)} videos, {len(bad)} corrupt")
    return bad


def _decode_planned(plan: pa.Table, root: Path, time_limit: float) -> pa.Table:
    from pipelines.data.batchjob import worker_decoder
    from pipelines.data.decode import DecodeSettings

    (row,) = plan.to_pylist()
    paths: list[str] = row["paths"]
    decoder = worker_decoder(DECODE, DecodeSettings(size=32), time_limit)
    try:
        rows = _errors(paths, decoder([str(root / path) for path in paths]))
    except UserError as error:
        rows = [{"path": "", "error": str(error)}]
    return pa.Table.from_pylist(rows, schema=pa.schema([("path", pa.string()), ("error", pa.string())]))


def _errors(paths: Sequence[str], decoded: Iterator[Any]) -> list[dict[str, str]]:
    return [{"path": path, "error": result.error} for path, result in zip(paths, decoded, strict=True)]
