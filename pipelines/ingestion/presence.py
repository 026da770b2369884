"""What is there of a data set before anything trains: each listed video is present, renamed, missing or corrupt."""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from pipelines.storage.place import Place, is_uri, why
from pipelines.videos.inputs import Input, Inputs, uri_of
from pipelines.videos.locate import difference
from pipelines.videos.remote import copies
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.ingestion.isolation import IsolatedDecoder


Status = Literal["present", "renamed", "missing", "corrupt"]
STATUSES: tuple[Status, ...] = ("present", "renamed", "missing", "corrupt")
THREADS = 16
"""Reading the first bytes of files waits for the disk, on network disks for milliseconds."""
SAY_EVERY = 10_000
"""Files looked at: of a store, that many take a minute or so."""
BATCH = 32
DECODE = "pipelines.ingestion.decode:decode_clip"
GONE, CHANGED = "it was in the store when this began, and is gone", "it changed in the store while this ran"


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
    below = f"{uri_of(inputs.place)}/"
    checked = []
    for video in inputs.videos:
        other = difference(video.uri.removeprefix(below), video.path) if video.path else ""
        if not video.path:
            checked.append(Checked(video, "missing", video.reason))
        elif video.path in broken:
            reason = broken[video.path]
            checked.append(Checked(video, "missing" if reason == GONE else "corrupt", reason))
        elif other:
            checked.append(Checked(video, "renamed", f"other {other}: {video.path}"))
        else:
            checked.append(Checked(video, "present"))
    used = {video.path for video in inputs.videos}
    names = dict.fromkeys(one.name for one in inputs.lists)
    names |= dict.fromkeys(sorted({name for video in inputs.videos for name in video.split.split("|")}))
    return Presence(tuple(checked), tuple(sorted(inputs.files - used)), tuple(names))


def first_bytes(inputs: Inputs, *, say: Callable[[str], None] = print) -> dict[str, str]:
    """Return the files that are no videos by their first bytes (empty, zeros, a web page), with the reason.

    Raises:
        UserError: the store that they lie in cannot be read.
    """
    paths = _found(inputs)
    look = partial(_no_object, Place.open(inputs.store.where)) if inputs.store else partial(_no_video, inputs.root)
    with ThreadPoolExecutor(THREADS) as threads:
        bad = {}
        for done, (path, reason) in enumerate(zip(paths, threads.map(look, paths), strict=True), 1):
            if reason:
                bad[path] = reason
            if done % SAY_EVERY == 0:
                say(f"{done}/{len(paths)} files looked at")
    return bad


def _found(inputs: Inputs) -> list[str]:
    return sorted({video.path for video in inputs.videos if video.path})


def _no_video(root: Path, path: str) -> str | None:
    from vlmodels.video import impostor

    try:
        return impostor(root / path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _no_object(place: Place, path: str) -> str | None:
    from vlmodels.video import impostor

    try:
        return impostor(cast("Path", _Object(place / path)))  # of a path it needs but ``open``
    except FileNotFoundError:
        return GONE
    except OSError as error:
        raise UserError(f"{(place / path).uri} cannot be read: {why(error)}") from error


@dataclass(frozen=True)
class _Object:
    """A file of a store, of which nothing is fetched but what is read."""

    place: Place

    def open(self, _: str) -> Any:
        return self.place.filesystem.open_input_stream(self.place.root, compression=None)


def undecodable(
    inputs: Inputs,
    *,
    known: Collection[str] = (),
    workers: int | None = None,
    time_limit: float = 60.0,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Decode every file as ingest would, in child processes on all CPUs that Ray has; return the bad ones.

    Files of a store are fetched by who decodes them, a few at a time, and not kept. Those ``known`` to be bad are not
    looked at.

    Raises:
        UserError: the decoder cannot run at all, or the store cannot be read.
    """
    paths = [path for path in _found(inputs) if path not in known]
    if not paths:
        return {}
    store = inputs.store
    sizes = [store.stats[path][0] for path in paths] if store else [0] * len(paths)
    plan = [
        {"paths": paths[start : start + BATCH], "sizes": sizes[start : start + BATCH]}
        for start in range(0, len(paths), BATCH)
    ]
    say(f"decoding {len(paths)} videos" + (f", {sum(sizes) / 1e6:,.1f} MB to fetch" if store else ""))
    bad: dict[str, str] = {}
    done = 0
    for table in _run(plan, store.where if store else str(inputs.root), workers, time_limit):
        for row in table.to_pylist():
            if not row["path"]:
                raise UserError(row["error"])
            done += 1
            if row["error"]:
                bad[row["path"]] = row["error"]
        if done * 10 // len(paths) != (done - len(table)) * 10 // len(paths):
            say(f"{done}/{len(paths)} videos, {len(bad)} corrupt")
    return bad


def _run(plan: list[dict[str, Any]], videos: str, workers: int | None, time_limit: float) -> Iterator[pa.Table]:
    import ray

    from pipelines.cluster.session import connect

    connect()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    results = ray.data.from_items(plan, override_num_blocks=len(plan)).map_batches(
        _decode_planned,
        fn_args=(videos, time_limit),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=min(workers or cpus, cpus, len(plan)),
        num_cpus=1,
    )
    yield from results.iter_batches(batch_size=None, batch_format="pyarrow")


def _decode_planned(plan: pa.Table, videos: str, time_limit: float) -> pa.Table:
    """Return a row for each path of the batch, or the one row of an error that ends the run.

    The batch is a row ``paths`` and ``sizes`` (in a store: bytes of each, as listed); ``videos`` is the folder or URI
    that they are below.
    """
    from pipelines.ingestion.batch_task import worker_decoder
    from pipelines.ingestion.decode import DecodeSettings
    from pipelines.ingestion.destination import Destination

    (row,) = plan.to_pylist()
    decoder = worker_decoder(DECODE, DecodeSettings(size=32), time_limit)
    try:
        rows = list(_decoded(row["paths"], row["sizes"], videos, decoder))
    except UserError as error:
        where = f" (on {socket.gethostname()})" if is_uri(videos) else ""
        rows = [{"path": "", "error": f"{error}{where}"}]
    except OSError as error:
        if not is_uri(videos):
            raise
        rows = [{"path": "", "error": Destination(Path(), videos).unwritable(error)}]  # the copies' disk
    return pa.Table.from_pylist(rows, schema=pa.schema([("path", pa.string()), ("error", pa.string())]))


def _decoded(
    paths: Sequence[str], sizes: Sequence[int], videos: str, decoder: IsolatedDecoder
) -> Iterator[dict[str, str]]:
    stored = is_uri(videos)
    with copies(videos, paths) if stored else nullcontext([str(Path(videos, path)) for path in paths]) as files:
        for number, result in enumerate(decoder(files)):
            reason = _fetched(Path(files[number]), sizes[number]) if stored else ""
            yield {"path": paths[number], "error": reason or result.error}


def _fetched(copy: Path, size: int) -> str:
    """Remove a copy that has served; return what is wrong with it."""
    if not copy.exists():
        return GONE
    found = copy.stat().st_size
    copy.unlink()
    return "" if found == size else CHANGED
