"""Checks a data set before anything trains: each listed video is present, renamed, missing or corrupt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pipelines.ingestion.batch import GONE, Batch, VideoSource
from pipelines.ingestion.clip_facts import FileStat
from pipelines.ingestion.decode import DECODER, DecodeRequest, DecodeSettings
from pipelines.ingestion.decode_check import CheckResult, RunChecks, check_on_ray
from pipelines.ingestion.earlier import rate_of
from pipelines.storage.place import Place, why
from pipelines.videos.inputs import Input, Inputs
from pipelines.videos.locate import difference
from pipelines.videos.uris import uri_of
from vlmodels.errors import UserError
from vlmodels.span import split_name

Status = Literal["present", "renamed", "missing", "corrupt"]
STATUSES: tuple[Status, ...] = ("present", "renamed", "missing", "corrupt")
THREADS = 16
"""Reading the first bytes of files waits for the disk, on network disks for milliseconds."""
SAY_EVERY = 10_000
"""Files between two lines of progress: in a store, so many take a minute or so."""
BATCH = 32
"""Videos that one task decodes."""
CHECKED = DecodeSettings(size=32)
"""Small frames: they are thrown away."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A listed video and its status; for all but the present ones, with the reason."""

    video: Input
    status: Status
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether the video can be trained on or scored."""
        return self.status in {"present", "renamed"}


@dataclass(frozen=True)
class Presence:
    """The status of every listed video, and the videos below the root that no list names.

    Attributes:
        videos: in the order of the inputs.
        extra: paths, below the root, of videos that no list names.
        splits: names of lists and split folders; "" stands for videos that are in none.
    """

    videos: tuple[Checked, ...]
    extra: tuple[str, ...]
    splits: tuple[str, ...] = field(default=())

    def counts(self) -> dict[str, Counter[str]]:
        """Return the number of videos of each status, by split."""
        found: dict[str, Counter[str]] = {name: Counter() for name in self.splits}
        for checked in self.videos:
            for name in checked.video.split.split("|"):
                found[name][checked.status] += 1
        return found

    def class_counts(self, split: str | None = None) -> dict[str, Counter[str]]:
        """Return the number of videos of each status, by class; of one split if it is named."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for checked in self.videos:
            if split is None or split in checked.video.split.split("|"):
                found[checked.video.label][checked.status] += 1
        return dict(found)

    @property
    def complete(self) -> bool:
        """Whether every listed video is there and whole, under its own or another name."""
        return all(checked.usable for checked in self.videos)


def check(inputs: Inputs, *, broken: Mapping[str, str] | None = None) -> Presence:
    """Give each of the videos of ``inputs`` (found with ``scan``) its status.

    Args:
        inputs: what is listed and where it was found.
        broken: why files cannot be used, by path below the root.
    """
    checked = tuple(_checked(video, inputs.place, broken or {}) for video in inputs.videos)
    used = {video.path for video in inputs.videos}
    names = dict.fromkeys(one.name for one in inputs.lists)
    names |= dict.fromkeys(sorted({name for video in inputs.videos for name in video.split.split("|")}))
    return Presence(checked, tuple(sorted(inputs.files - used)), tuple(names))


def _checked(video: Input, root: str, broken: Mapping[str, str]) -> Checked:
    if not video.path:
        return Checked(video, "missing", video.reason)
    if video.reason:
        return Checked(video, "corrupt", video.reason)
    name = video.span.after(video.path) if video.span else video.path
    if reason := broken.get(name) or broken.get(video.path, ""):
        return Checked(video, "missing" if reason == GONE else "corrupt", reason)
    listed = split_name(video.uri)[0]
    other = difference(listed.removeprefix(f"{uri_of(root)}/"), video.path)
    if other:
        return Checked(video, "renamed", f"other {other}: {video.path}")
    return Checked(video, "present")


def first_bytes(inputs: Inputs, *, say: Callable[[str], None] = print) -> dict[str, str]:
    """Find the files that are not videos by their first bytes (empty, zeros, a web page).

    Returns:
        The reason for each of them, by its path below the root.

    Raises:
        UserError: the store with the files cannot be read.
    """
    paths = sorted({video.path for video in inputs.videos if video.path})
    look = partial(_look_in_store, Place.open(inputs.store.where)) if inputs.store else partial(_look, inputs.root)
    bad = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for done, (path, reason) in enumerate(zip(paths, threads.map(look, paths), strict=True), 1):
            if reason:
                bad[path] = reason
            if done % SAY_EVERY == 0:
                say(f"{done}/{len(paths)} files looked at")
    return bad


def _look(root: Path, path: str) -> str | None:
    from vlmodels.readers.picture_folder import list_pictures
    from vlmodels.video import VideoError, impostor

    place = root / path
    try:
        if place.is_dir():
            list_pictures(place)
            return None
        with place.open("rb") as file:
            return impostor(file)
    except VideoError as error:
        return error.cause
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _look_in_store(root: Place, path: str) -> str | None:
    from vlmodels.video import impostor

    place = root / path
    try:
        with place.filesystem.open_input_stream(place.root, compression=None) as stream:  # fetches what is read alone
            return impostor(stream)
    except FileNotFoundError:
        return GONE
    except OSError as error:
        raise UserError(f"{place.uri} cannot be read: {why(error)}") from error


def undecodable(
    inputs: Inputs,
    *,
    known: Collection[str] = (),
    workers: int | None = None,
    time_limit: float = 60.0,
    say: Callable[[str], None] = print,
    decode: str = DECODER,
    run_checks: RunChecks = check_on_ray,
) -> dict[str, str]:
    """Find the files that do not decode, in child processes on all CPUs that Ray has, as ingest would.

    Files of a store are fetched where they are decoded, a few at a time, and not kept.

    Args:
        inputs: the videos.
        known: paths of files that are known to be bad, which are left out.
        workers: batches decoded at the same time; None for one on each CPU.
        time_limit: seconds for each video.
        say: prints a line of progress.
        decode: ``module:function`` that decodes a video.
        run_checks: decodes batches.

    Returns:
        The reason for each of them, by its path below the root, with its span behind it.

    Raises:
        UserError: the decoder cannot run at all, or the store cannot be read.
    """
    sources = sorted(_sources(inputs, known), key=lambda source: source.name)
    if not sources:
        return {}
    say(f"decoding {len(sources)} videos{_to_fetch(inputs, {source.path for source in sources})}")
    checked = run_checks(_batches(inputs, sources), DecodeRequest(CHECKED, workers, time_limit, decode))
    return _problems(checked, len(sources), say)


def _sources(inputs: Inputs, known: Collection[str]) -> set[VideoSource]:
    """Return the videos and parts of videos that were found, each once, but for the ``known`` files."""
    stats = inputs.store.stats if inputs.store else {}
    return {
        VideoSource(
            "",
            video.path,
            FileStat(*stats[video.path]) if inputs.store else None,
            video.span,
            rate_of(inputs, video),
        )
        for video in inputs.videos
        if video.path and not video.reason and video.path not in known
    }


def _to_fetch(inputs: Inputs, paths: Iterable[str]) -> str:
    """Return how much of a store has to be fetched, for a line of progress; "" for local files."""
    if not inputs.store:
        return ""
    size = sum(inputs.store.stats[path][0] for path in paths)
    return f", {size / 1e6:,.1f} MB to fetch"


def _problems(checked: Iterable[Sequence[CheckResult]], count: int, say: Callable[[str], None]) -> dict[str, str]:
    """Return the reason for each video that does not decode, by path; say something at each tenth of ``count``."""
    bad: dict[str, str] = {}
    done = 0
    for results in checked:
        before = done
        done += len(results)
        bad |= {result.path: result.error for result in results if result.error}
        if done * 10 // count != before * 10 // count:
            say(f"{done}/{count} videos, {len(bad)} corrupt")
    return bad


def _batches(inputs: Inputs, sources: Sequence[VideoSource]) -> list[Batch]:
    videos = inputs.store.where if inputs.store else str(inputs.root)
    return [
        Batch(name=str(start // BATCH), videos=videos, sources=tuple(sources[start : start + BATCH]))
        for start in range(0, len(sources), BATCH)
    ]
