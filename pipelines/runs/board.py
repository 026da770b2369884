"""The board between driver and workers: jobs one way, messages the other.

A tiny actor holds both, so that it works alike on one machine and on a cluster without shared disks. It outlives the
workers: those that Ray starts again find there which jobs have ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipelines.runs.progress import Message

SAY_WAITING_S = 60.0
_READ_S = 0.2
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How a worker ended: well, or with an error that a retry would only repeat."""

    error: str = ""
    diverged: bool = False


@dataclass(frozen=True, slots=True)
class JobEnded:
    """All workers are through with a job."""

    end: WorkerEnd


Note = tuple[str, Message | JobEnded]
"""A job's name, and a message about it; from Ray Train, which knows no jobs, the name is empty."""


class _Board:
    """The actor. Jobs stay packed, as references: unpacked, they would import half of the project here."""

    def __init__(self) -> None:
        self._closed = False
        self._notes: list[Note] = []
        self._jobs: dict[str, Any] = {}
        self._ended: set[str] = set()

    def add(self, name: str, packed: Sequence[Any]) -> None:
        """Add a job: its name, and a reference to it in a list, which Ray hands on as it is."""
        self._jobs[name] = packed[0]
        self._ended.discard(name)

    def close(self) -> None:
        """Take no more jobs."""
        self._closed = True

    def drop(self, name: str) -> None:
        """Give out a job no more."""
        self._ended.add(name)

    def next(self) -> str | None:
        """Return the job to do now, "" after the last, None where more may come."""
        return next((name for name in self._jobs if name not in self._ended), "" if self._closed else None)

    def job(self, name: str) -> list[Any]:
        """Return a list with the reference to a job."""
        return [self._jobs[name]]

    def put(self, name: str, message: Message | JobEnded) -> None:
        """Add a message."""
        if isinstance(message, JobEnded):
            self._ended.add(name)
            self._jobs.pop(name, None)  # all have read it
        self._notes.append((name, message))

    def read(self, heard: int) -> list[Note]:
        """Return the messages after the first ``heard``; an answer that is lost on the way can be asked for again."""
        return self._notes[heard:]


class Mailbox:
    """The workers' end for messages about a job; sending never waits and never fails a run."""

    def __init__(self, actor: Any, name: str = "") -> None:
        self._actor = actor
        self._name = name

    def __call__(self, message: Message | JobEnded) -> None:
        """Send ``message``."""
        self._actor.put.remote(self._name, message)


class Jobs:
    """The workers' end for jobs."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def next(self) -> str:
        """Return the name of the job to do now, "" after the last; wait for one where more may come."""
        import ray

        while (name := ray.get(self._actor.next.remote())) is None:
            time.sleep(_READ_S)
        return str(name)

    def get(self, name: str) -> Any:
        """Return a job."""
        import ray

        return ray.get(ray.get(self._actor.job.remote(name))[0])

    def end(self, name: str, end: WorkerEnd) -> None:
        """Report that all are through with a job; after this it is not given out again."""
        import ray

        ray.get(self._actor.put.remote(name, JobEnded(end)))

    def mailbox(self, name: str) -> Mailbox:
        """Return what takes messages about a job to the driver."""
        return Mailbox(self._actor, name)


class Board:
    """The driver's end; as a context manager, a thread that reads the messages until the block ends.

    Args:
        hear: gets a job's name and each message about it.
        idle: called every minute in which ``working`` is false.
        working: whether workers work.
    """

    def __init__(
        self,
        hear: Callable[[str, Message | JobEnded], None],
        *,
        idle: Callable[[], None] = lambda: None,
        working: Callable[[], bool] = lambda: True,
    ) -> None:
        self._hear = hear
        self._idle = idle
        self._working = working
        self._heard = 0
        self._ended: set[str] = set()
        self._stop = threading.Event()
        self._reading = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="board", daemon=True)

    def __enter__(self) -> Self:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()  # a machine that may leave would take the messages with it
        stay = NodeAffinitySchedulingStrategy(here, soft=False)
        self._actor = ray.remote(num_cpus=0, scheduling_strategy=stay)(_Board).remote()
        self.jobs = Jobs(self._actor)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        self._stop.set()
        self._thread.join(timeout=60)  # it may be putting a finished run in its place
        self.catch_up()
        ray.kill(self._actor)

    def add(self, name: str, job: Any) -> None:
        """Give the workers a job."""
        import ray

        self._ended.discard(name)
        self._actor.add.remote(name, [ray.put(job)])

    def close(self) -> None:
        """Let the workers end after the last job."""
        self._actor.close.remote()

    def has_ended(self, name: str) -> bool:
        """Return whether the workers were heard to be through with a job."""
        return name in self._ended

    def drop(self, name: str) -> None:
        """Let the workers leave a job out."""
        self._actor.drop.remote(name)

    def _follow(self) -> None:
        quiet_since = time.monotonic()
        while not self._stop.wait(_READ_S):
            self.catch_up()
            if self._working():
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > SAY_WAITING_S:
                quiet_since = time.monotonic()
                with contextlib.suppress(Exception):  # Ray may be as busy as its machines
                    self._idle()

    def catch_up(self) -> None:
        """Read what is on the board now."""
        import ray

        with self._reading:
            try:
                notes = ray.get(self._actor.read.remote(self._heard), timeout=_ANSWER_S)
            except Exception:  # noqa: BLE001 - a board that is lost ends the workers, and they the run
                return
            for name, message in notes:
                self._heard += 1
                if isinstance(message, JobEnded):
                    self._ended.add(name)
                self._hear(name, message)
