"""News from the workers to the driver: progress lines as they happen, epoch metrics to the tracker.

A tiny actor is the mailbox, so that it works alike on one machine and on a cluster without shared disks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pipelines.runs.tracking import Tracker


class _Box:
    def __init__(self) -> None:
        self._news: list[dict[str, Any]] = []

    def put(self, item: dict[str, Any]) -> None:
        """Drop an item in."""
        self._news.append(item)

    def take(self) -> list[dict[str, Any]]:
        """Empty the box."""
        news, self._news = self._news, []
        return news


class Mailbox:
    """The workers' end; sending never waits and never fails a run."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, item: dict[str, Any]) -> None:
        """Send ``item``."""
        self._actor.put.remote(item)


SAY_WAITING_S = 60.0
OnEpochNews = Callable[[Mapping[str, float]], None]


class Progress:
    """The driver's end: what the news mean, whoever brings it.

    Used as a context it is a thread that reads a mailbox until the run ends; a worker in this process tells ``hear``.

    Args:
        name: of the run.
        epochs: that it trains.
        tracker: gets each epoch's numbers.
        say: gets lines for a reader.
        on_epoch: called with each epoch's numbers, last.
        why_waiting: asked every minute that passes without workers.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        tracker: Tracker,
        say: Callable[[str], None],
        *,
        on_epoch: OnEpochNews | None = None,
        why_waiting: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.restarts = 0
        self.mistake = ""  # a user's, that ended a worker
        self.seen: set[int] = set()  # epochs trained while this driver ran
        self.logged: set[int] = set()  # epochs that the tracker has
        self.workers: dict[int, int] = {}  # rank -> pid
        self.hosts: dict[int, str] = {}  # rank -> machine, of those that work now
        self._name, self._epochs, self._tracker, self._say = name, epochs, tracker, say
        self._notify = on_epoch
        self._started = time.monotonic()
        self._arrived: set[int] = set()
        self._working = False  # whether all workers are up
        self._why_waiting = why_waiting
        self._first_epoch: tuple[float, float] | None = None
        self._stop = threading.Event()
        self._reading = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> Self:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        own = ray.get_runtime_context().get_node_id()  # a machine that may go would take the news with it
        stay = NodeAffinitySchedulingStrategy(own, soft=False)
        self.actor = ray.remote(num_cpus=0, scheduling_strategy=stay)(_Box).remote()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        self._stop.set()
        self._thread.join(timeout=10)
        self.catch_up()
        ray.kill(self.actor)

    def _follow(self) -> None:
        quiet = time.monotonic()
        while not self._stop.wait(0.5):
            self.catch_up()
            if self._working:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > SAY_WAITING_S:
                quiet = time.monotonic()
                with contextlib.suppress(Exception):  # Ray may be as busy as its machines
                    if said := self._why_waiting():
                        self.note(said)

    def note(self, line: str) -> None:
        """Tell the reader something about the run."""
        self._say(f"{self._name}: {line}")

    def catch_up(self) -> None:
        """Read what is in the mailbox now."""
        import ray

        with self._reading:
            try:
                news = ray.get(self.actor.take.remote(), timeout=5)
            except Exception:  # noqa: BLE001 - news is a courtesy: a lost mailbox must not end a run
                return
            for item in news:
                self.hear(item)

    def hear(self, item: Mapping[str, Any]) -> None:
        """Take note of a piece of news."""
        getattr(self, f"_on_{item['kind']}")({key: value for key, value in item.items() if key != "kind"})

    def _on_worker(self, item: dict[str, Any]) -> None:
        if item["rank"] == 0:
            self.restarts += 0 in self.workers
        self.hosts = {rank: host for rank, host in self.hosts.items() if rank < item["world"]}
        self.workers[item["rank"]], self.hosts[item["rank"]] = item["pid"], item["host"]
        self._arrived.add(item["rank"])
        if len(self._arrived) == item["world"]:
            self._arrived.clear()
            self._working = True
            self._say(
                f"{self._name}: {_workers(item['world'])} {'are' if item['world'] > 1 else 'is'} up after "
                f"{time.monotonic() - self._started:.0f} s, on {_hosts(self.hosts)}"
            )

    def _on_fetched(self, item: dict[str, Any]) -> None:
        said = f"{item['shards']} shards in {item['seconds']:.0f} s"
        self.note(f"rank {item['rank']} has fetched {said}")

    def _on_lost(self, item: dict[str, Any]) -> None:
        self._pause()
        self.mistake = ""
        ranks = ", ".join(f"{rank} on {self.hosts.get(rank, 'an unknown machine')}" for rank in item["ranks"])
        then = "starting again from the last epoch kept"
        if not item["again"]:
            often = ", scale.max_failures=N tries more often" if item["counted"] else ""
            then = f"giving up; the same command goes on from the last epoch kept{often}"
        self.note(f"lost {f'rank {ranks}' if ranks else 'the workers'} ({item['reason']}); {then}")

    def _on_resized(self, item: dict[str, Any]) -> None:
        self._pause()
        workers, before = item["workers"], item["before"]
        room = "there is room again" if workers > before else "no room was found for more"
        start = " from the last epoch kept" if self.seen else ""
        self.note(f"going on with {_workers(workers)} instead of {before}{start}, as {room}")

    def _pause(self) -> None:
        self._arrived.clear()
        self._working = False

    def _on_mistake(self, item: dict[str, Any]) -> None:
        self.mistake, self._working = item["message"], False

    def _on_resumed(self, item: dict[str, Any]) -> None:
        self._say(f"{self._name}: going on after epoch {item['epoch']}")
        self._first_epoch = None

    def _on_step(self, item: dict[str, Any]) -> None:
        if item["steps"] >= 200:
            self._say(f"{self._name}: epoch {item['epoch']}, step {item['step']}/{item['steps']}")

    def _on_epoch(self, item: dict[str, Any]) -> None:
        now, epoch = time.monotonic(), int(item["epoch"])
        self.seen.add(epoch)
        self.mistake = ""  # it was got over
        self._first_epoch = self._first_epoch or (now - item["seconds"], epoch - 1)
        pace = (now - self._first_epoch[0]) / (epoch - self._first_epoch[1])
        select = f"  select {item['select_top1']:.1f} %" if "select_top1" in item else ""
        self._say(
            f"{self._name}: epoch {epoch}/{self._epochs}  loss {item['loss']:.3f}  train {item['train_top1']:.1f} %"
            f"{select}  {item['clips_per_second']:.0f} clips/s  {pace * (self._epochs - epoch):.0f} s left"
        )
        try:
            self._tracker.epoch(epoch, item)
            self.logged.add(epoch)
        except Exception as error:  # noqa: BLE001 - training goes on; the numbers are in run.json too
            self._say(f"{self._name}: MLflow did not take epoch {epoch} ({type(error).__name__}); going on")
        if self._notify is not None:
            self._notify(item)

    def _on_scoring(self, item: dict[str, Any]) -> None:
        self._say(f"{self._name}: scoring {item['videos']} {item['set']} videos")


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _hosts(hosts: Mapping[int, str]) -> str:
    """``10.0.0.1 (rank 0), 10.0.0.2 (ranks 1-4)``: contiguous ranks share a machine in Ray Train."""
    ranks: dict[str, list[int]] = {}
    for rank, host in sorted(hosts.items()):
        ranks.setdefault(host, []).append(rank)
    return ", ".join(
        f"{host} (rank{'s' if len(own) > 1 else ''} {'-'.join(map(str, dict.fromkeys((own[0], own[-1]))))})"
        for host, own in ranks.items()
    )
