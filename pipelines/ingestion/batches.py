"""Plans batches of videos, and decodes them on Ray."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from pipelines.cluster.ask_nodes import blind_nodes
from pipelines.cluster.capacity import can_grow, most_places
from pipelines.cluster.view import CONNECTED, ClusterView
from pipelines.config.schema import ScaleConfig
from pipelines.ingestion.batch import SHARE_VIDEOS, Batch, VideoSource
from pipelines.ingestion.batch_task import decode_on_ray
from pipelines.ingestion.claim import CLAIM, SHARE_OUT
from pipelines.ingestion.clip_facts import FATAL, ClipFacts, FileStat
from pipelines.ingestion.decode import DecodeRequest
from pipelines.ingestion.destination import Destination
from pipelines.ingestion.earlier import rate_of, read_earlier, remove_shards
from pipelines.videos.inputs import Input, Inputs
from vlmodels.errors import UserError

LARGEST_BATCH = 64
SMALLEST_BATCH = 8
BATCHES = 32
"""Batches that the videos are cut into, unless these would be too large or too small."""
SAY_EVERY_S = 3.0


class RunBatches(Protocol):
    """How planned batches are decoded; tests do so in their own process."""

    def __call__(
        self,
        batches: Sequence[Batch],
        destination: Destination,
        request: DecodeRequest,
        say: Callable[[str], None],
    ) -> Iterator[ClipFacts]:
        """Decode the batches, and yield the facts of each clip."""


@dataclass(frozen=True, slots=True)
class CpuRoom:
    """CPUs to decode with.

    Attributes:
        machines: number of machines that are up.
        cpus: of these machines.
        grows: whether an autoscaler may start more machines.
        most: CPUs once it has started all of them; None if that is unknown.
    """

    machines: int
    cpus: int
    grows: bool = False
    most: int | None = None


def plan_batches(
    inputs: Inputs, pending: Sequence[Input], stats: Mapping[str, FileStat | None], settings_digest: str, token: str
) -> list[Batch]:
    """Cut the videos into batches, named after their content: the same work gives files of the same names."""
    size = max(SMALLEST_BATCH, min(LARGEST_BATCH, len(inputs.videos) // BATCHES))
    return [
        Batch(
            name=_batch_name(videos, stats, settings_digest),
            videos=inputs.store.where if inputs.store else str(inputs.root),
            sources=tuple(_source(inputs, video, stats[video.clip_id]) for video in videos),
            token=token,
        )
        for videos in _in_batches(pending, size)
    ]


def _source(inputs: Inputs, video: Input, found: FileStat | None) -> VideoSource:
    listed = found if inputs.store else None
    return VideoSource(video.clip_id, video.path, listed, video.span, video.fps and rate_of(inputs, video))


def _in_batches(pending: Sequence[Input], size: int) -> Iterator[list[Input]]:
    """Yield the videos in batches of ``size``; the parts of one file, up to ``LARGEST_BATCH``, stay together."""
    if not any(video.span for video in pending):  # nearly always
        yield from (list(pending[start : start + size]) for start in range(0, len(pending), size))
        return
    batch: list[Input] = []
    for _, same in itertools.groupby(pending, key=lambda video: video.path if video.span else video.uri):
        parts = list(same)
        while parts:
            if batch and len(batch) + min(len(parts), LARGEST_BATCH) > size:
                yield batch
                batch = []
            batch += parts[:LARGEST_BATCH]
            parts = parts[LARGEST_BATCH:]
    if batch:
        yield batch


def _batch_name(videos: Sequence[Input], stats: Mapping[str, FileStat | None], settings_digest: str) -> str:
    content = []
    for video in videos:
        stat = stats[video.clip_id]
        content.append((video.uri, video.path, asdict(stat) if stat else None, *([video.fps] if video.fps else [])))
    return hashlib.sha256(json.dumps([settings_digest, content]).encode()).hexdigest()[:16]


def cpu_room(cluster: ClusterView = CONNECTED) -> CpuRoom:
    """Count the CPUs of a cluster, and those that its autoscaler may add."""
    nodes = cluster.nodes()
    cpus = sum(int(node["Resources"].get("CPU", 0)) for node in nodes)
    if can_grow(len(nodes), cluster=cluster):
        return CpuRoom(len(nodes), cpus, grows=True, most=most_places(ScaleConfig(), nodes, cluster=cluster))
    return CpuRoom(len(nodes), cpus)


def run_on_ray(
    batches: Sequence[Batch],
    destination: Destination,
    request: DecodeRequest,
    say: Callable[[str], None],
    *,
    measure_room: Callable[[], CpuRoom] = cpu_room,
) -> Iterator[ClipFacts]:
    """Decode planned batches on Ray, and yield the facts of each clip.

    Raises:
        UserError: a machine has another folder or lacks the videos, there is no CPU, or a batch cannot be written.
    """
    import ray

    from pipelines.cluster.session import connect_for_data

    connect_for_data()
    everywhere = destination.resolve()
    check_machines(batches[0], everywhere)
    room = measure_room()
    workers = workers_for(request.workers, len(batches), room)
    waiting = "" if room.cpus else ", which wait for machines that the autoscaler may start"
    clips = sum(len(batch.sources) for batch in batches)
    say(f"decoding {clips} clips in {len(batches)} batches with {workers} workers{waiting}")
    tables = ray.data.from_items([batch.to_row() for batch in batches], override_num_blocks=len(batches)).map_batches(
        decode_on_ray,
        fn_args=(everywhere, request),
        batch_size=1,
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=1,
    )
    progress = _Progress(clips, say)
    for table in tables.iter_batches(batch_size=None, batch_format="pyarrow"):
        facts = [ClipFacts.from_row(row) for row in table.to_pylist()]
        fatal = next((one for one in facts if one.status == FATAL), None)
        if fatal is not None:
            remove_shards(destination.folder, set(read_earlier(destination.folder).shards))
            raise UserError(fatal.error)
        yield from facts
        progress.add(facts)


def check_machines(
    batch: Batch,
    destination: Destination,
    *,
    blind_nodes: Callable[[Sequence[str]], list[list[str]]] = blind_nodes,
) -> None:
    """Check that every machine sees the same folder ``destination`` and the first video of a batch.

    Raises:
        UserError: naming the machines that do not.
    """
    claims = [] if destination.uri else [str(destination.folder / CLAIM)]
    videos = [] if batch.is_stored else [_file_of(Path(batch.videos, batch.sources[0].path))]
    blind = blind_nodes([*claims, *videos])
    for nodes in blind[: len(claims)]:
        if nodes:
            raise UserError(f"{destination.folder} is not the same folder on {', '.join(nodes)}; {SHARE_OUT}")
    for path, nodes in zip(videos, blind[len(claims) :], strict=True):
        if nodes:
            raise UserError(f"{path} is not there, or another file, on {', '.join(nodes)}; {SHARE_VIDEOS}")


def _file_of(video: Path) -> str:
    """Return the path of a video's file; of a frame folder, of a file in it."""
    return str(min(video.iterdir(), default=video)) if video.is_dir() else str(video)


def workers_for(wanted: int | None, batches: int, room: CpuRoom) -> int:
    """Return how many batches are decoded at the same time: one for each CPU that is up or may still come.

    Raises:
        UserError: there is no CPU.
    """
    cpus = room.cpus
    if room.grows:
        cpus = max(cpus, batches if room.most is None else room.most)
    if not cpus:
        raise UserError(f"Ray has no CPU to decode with ({room.machines} machines, see 'ray status'); add machines")
    return min(wanted or cpus, cpus, batches)


@dataclass
class _Progress:
    """Reports every few seconds how many clips are done, and how fast."""

    clips: int
    say: Callable[[str], None]
    done: int = 0
    bad: int = 0
    first: int = 0  # clips of the first batch, which waited for Ray's workers to start
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    def add(self, facts: Sequence[ClipFacts]) -> None:
        self.done += len(facts)
        self.bad += sum(not one.is_ok for one in facts)
        now = time.monotonic()
        if not self.first:
            self.first = self.done
            self.started = now
        elif now - self.reported > SAY_EVERY_S or self.done == self.clips:
            seconds = now - self.started
            rate = f", {(self.done - self.first) / seconds:.1f} clips/s" if seconds > 1 else ""
            self.say(f"{self.done}/{self.clips} clips{rate}, {self.bad} quarantined")
            self.reported = now
