"""Messages from the workers to the driver, and what it makes of them: lines for a reader, epochs for callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from pipelines.config.text import plural


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A worker has started."""

    rank: int
    world: int
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class Checking:
    """A worker compares shards with the index that its machine has not read since they changed; ``size`` in bytes."""

    rank: int
    shards: int
    size: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A worker has copied shards from a store."""

    rank: int
    shards: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """Training continues after ``epoch``, the last one that was kept; ``damaged`` names checkpoints passed over."""

    epoch: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of an epoch is done; not every step is reported."""

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is trained and kept: its metrics, with its 1-based number as ``epoch``."""

    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ScoringStarted:
    """The scoring of a test set begins."""

    name: str
    videos: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A worker met a mistake of the user's, such as a full disk, while it worked."""

    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Ray Train lost workers.

    Attributes:
        ranks: those lost; none if it is all of them, or not known.
        reason: why.
        retried: whether Ray starts the workers again.
        counted: whether the loss counts against ``scale.max_failures``.
    """

    ranks: tuple[int, ...]
    reason: str
    retried: bool
    counted: bool


@dataclass(frozen=True, slots=True)
class Resized:
    """The number of workers changes."""

    workers: int
    before: int


@dataclass(frozen=True, slots=True)
class LoadSampled:
    """The load of a worker's machine at this time, under the names of MLflow's system metrics."""

    host: str
    load: Mapping[str, float]


Message = (
    WorkerUp
    | Checking
    | Fetched
    | Resumed
    | StepDone
    | EpochDone
    | ScoringStarted
    | Mistake
    | Lost
    | Resized
    | LoadSampled
)
Send = Callable[[Message], None]
EpochListener = Callable[[Mapping[str, float]], None]
LoadListener = Callable[[LoadSampled], None]

SAY_BYTES_FROM = 2 << 30
"""Bytes of shards from which their check is reported: about two seconds."""
SAY_STEPS_FROM = 200
"""Steps of an epoch from which its steps are reported too."""


class Progress:
    """What the driver knows of a run: it takes the messages, whoever brings them.

    Args:
        name: of the run.
        epochs: that it trains.
        say: gets lines for a reader.
        on_epoch: called in this order with the metrics of each epoch; may raise to end a run in this process.
        on_message: called with every message before anything else.
        on_load: called with the load of a machine; its calls may come from another thread.
        clock: seconds.

    Attributes:
        restarts: how often the workers were started again.
        losses: how often workers were lost that count against ``scale.max_failures``.
        mistake: the user's mistake that ended a worker, if any.
        working: whether all workers are up.
        seen: epochs trained while this driver ran.
        hosts: machine of each rank that works now.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        say: Callable[[str], None],
        *,
        on_epoch: Sequence[EpochListener] = (),
        on_message: Send | None = None,
        on_load: LoadListener = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restarts = 0
        self.losses = 0
        self.mistake = ""
        self.working = False
        self.seen: set[int] = set()
        self.hosts: dict[int, str] = {}
        self._name = name
        self._epochs = epochs
        self._say = say
        self._on_epoch = on_epoch
        self._on_message = on_message
        self._on_load = on_load
        self._clock = clock
        self._started = clock()
        self._started_before = False  # whether rank 0 was up before
        self._arrived: set[int] = set()
        self._first_epoch: tuple[float, float] | None = None  # when it began, and the number of the one before

    def begin(self) -> None:
        """Count seconds from now."""
        self._started = self._clock()

    def note(self, line: str) -> None:
        """Print a line about the run."""
        self._say(f"{self._name}: {line}")

    def hear(self, message: Message) -> None:
        """Take a message."""
        if self._on_message is not None:
            self._on_message(message)
        match message:
            case WorkerUp():
                self._worker_up(message)
            case Checking() | Fetched():
                self._reading(message)
            case Resumed():
                self._resumed(message)
            case StepDone():
                self._step_done(message)
            case EpochDone(metrics):
                self._epoch_done(metrics)
            case ScoringStarted(name, videos):
                self.note(f"scoring {videos} {name} videos")
            case Mistake(text):
                self.mistake = text
                self.working = False
            case Lost():
                self._lost(message)
            case Resized(workers, before):
                self._resized(workers, before)
            case LoadSampled():
                self._on_load(message)
            case _:
                assert_never(message)

    def _resumed(self, message: Resumed) -> None:
        for line in message.damaged:
            self.note(f"{line}; going back to the checkpoint before")
        self.note(f"continuing after epoch {message.epoch}")
        self._first_epoch = None

    def _step_done(self, message: StepDone) -> None:
        if message.steps >= SAY_STEPS_FROM:
            self.note(f"epoch {message.epoch}, step {message.step}/{message.steps}")

    def _reading(self, message: Checking | Fetched) -> None:
        shards = plural(message.shards, "shard")
        if isinstance(message, Fetched):
            self.note(f"rank {message.rank} has fetched {shards} in {message.seconds:.0f} s")
        elif message.size >= SAY_BYTES_FROM:
            self.note(f"rank {message.rank} reads {shards} ({message.size / 1e9:.1f} GB) once, to find damage")

    def _worker_up(self, worker: WorkerUp) -> None:
        if worker.rank == 0:
            self.restarts += int(self._started_before)
            self._started_before = True
        self.hosts = {rank: host for rank, host in self.hosts.items() if rank < worker.world}
        self.hosts[worker.rank] = worker.host
        self._arrived.add(worker.rank)
        if len(self._arrived) == worker.world:
            self._arrived.clear()
            self.working = True
            verb = "is" if worker.world == 1 else "are"
            seconds = self._clock() - self._started
            self.note(f"{plural(worker.world, 'worker')} {verb} up after {seconds:.0f} s, on {_hosts_text(self.hosts)}")

    def _epoch_done(self, metrics: Mapping[str, float]) -> None:
        epoch = int(metrics["epoch"])
        self.seen.add(epoch)
        self.mistake = ""  # the workers recovered from it
        select = f"  select {metrics['select_top1']:.1f} %" if "select_top1" in metrics else ""
        self.note(
            f"epoch {epoch}/{self._epochs}  loss {metrics['loss']:.3f}  train {metrics['train_top1']:.1f} %"
            f"{select}  {metrics['clips_per_second']:.0f} clips/s  {self._seconds_left(epoch, metrics):.0f} s left"
        )
        for call in self._on_epoch:
            call(metrics)

    def _seconds_left(self, epoch: int, metrics: Mapping[str, float]) -> float:
        """Estimate the rest of the training from the epochs since the workers started."""
        now = self._clock()
        if self._first_epoch is None:
            self._first_epoch = (now - metrics["seconds"], epoch - 1)
        began, before = self._first_epoch
        return (now - began) / (epoch - before) * (self._epochs - epoch)

    def _lost(self, loss: Lost) -> None:
        self._pause()
        self.losses += loss.counted
        self.mistake = ""
        ranks = ", ".join(f"{rank} on {self.hosts.get(rank, 'an unknown machine')}" for rank in loss.ranks)
        who = f"rank {ranks}" if ranks else "the workers"
        if loss.retried:
            then = "starting again from the last epoch kept"
        else:
            then = "giving up; the same command continues from the last epoch kept"
            if loss.counted:
                then += ", scale.max_failures=N tries more often"
        self.note(f"lost {who} ({loss.reason}); {then}")

    def _resized(self, workers: int, before: int) -> None:
        self._pause()
        reason = "there is room again" if workers > before else "no room was found for more"
        start = " from the last epoch kept" if self.seen else ""
        self.note(f"continuing with {plural(workers, 'worker')} instead of {before}{start}, as {reason}")

    def _pause(self) -> None:
        self._arrived.clear()
        self.working = False


def _hosts_text(hosts: Mapping[int, str]) -> str:
    """Return ``10.0.0.1 (rank 0), 10.0.0.2 (ranks 1-4)``: contiguous ranks share a machine in Ray Train."""
    ranks: dict[str, list[int]] = {}
    for rank, host in sorted(hosts.items()):
        ranks.setdefault(host, []).append(rank)
    return ", ".join(f"{host} ({_ranks_text(own)})" for host, own in ranks.items())


def _ranks_text(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
