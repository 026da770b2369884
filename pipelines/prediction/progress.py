"""How far a prediction of many videos is, and the summary at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.prediction.rows import FAILED, NONE, OK, Row
from pipelines.prediction.scoring import Scored
from vlmodels.errors import shortened

SAY_EVERY_S = 3.0
REASONS = 3
"""Reasons of failures that the summary names."""
MOST_REASONS = 1000
"""Different reasons that are counted, so that a million odd files fill no memory."""


@dataclass
class Progress:
    """Says every few seconds how many videos are done, how fast, and how long the rest takes.

    The rate leaves out the first batch, which waits for processes and the model.
    """

    videos: int
    say: Callable[[str], None]
    done: int = 0
    failed: int = 0
    first: int = 0
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)
    ended: float = field(default_factory=time.monotonic)

    def add(self, scored: Sequence[Scored]) -> None:
        """Count videos that are done."""
        self.done += len({one.look.index for one in scored})  # windows of a video come together
        self.failed += sum(one.status == FAILED for one in scored)
        self.ended = now = time.monotonic()
        if not self.first:
            self.first, self.started = self.done, now
        if now - self.reported > SAY_EVERY_S:
            self.reported = now
            left = self.videos - self.done
            rest = f", about {_duration(left / self.rate)} left" if self.rate and left else ""
            rate = f", {self.rate:.1f} clips/s" if self.rate else ""
            self.say(f"{self.done}/{self.videos} videos{rate}, {self.failed} failed{rest}")

    @property
    def rate(self) -> float:
        """Clips per second; 0 if it is not known yet."""
        seconds = self.ended - self.started
        return (self.done - self.first) / seconds if seconds > 0.5 else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a prediction of many videos has come to.

    Attributes:
        ok: videos, or windows of them (``unit``), with an answer.
        none: those that are "none of these".
        reasons: of failures, the commonest first, each with how often it occurs.
        failed: those that failed.
        seconds: that this command took.
        done: videos that this command has done.
        rate: clips per second; 0 if too few were done to tell.
        where: names of the results.
        unit: what is counted.
    """

    ok: int
    none: int
    failed: int
    reasons: tuple[tuple[str, int], ...]
    seconds: float
    done: int
    rate: float
    where: tuple[str, ...]
    unit: str = "videos"

    @property
    def lines(self) -> Iterator[str]:
        """The summary for people."""
        counts = [
            f"{self.ok} {self.unit} ok",
            f"{self.none} none of these" if self.none else "",
            f"{self.failed} failed",
        ]
        rate = f" ({self.rate:.1f} clips/s)" if self.rate else ""
        yield f"{', '.join(filter(None, counts))}; {self.done} videos done now in {_duration(self.seconds)}{rate}"
        for reason, number in self.reasons[:REASONS]:
            yield f"  failed {number} x {shortened(reason, 160)}"
        rest = sum(number for _, number in self.reasons[REASONS:])
        if rest:
            yield f"  failed {rest} x other reasons (column 'reason')"
        for where in self.where:
            yield f"written to {where}"


def summarise(
    rows: Iterable[Row], where: tuple[str, ...], seconds: float, progress: Progress | None, unit: str = "videos"
) -> Summary:
    """Count the rows of all videos, or of their windows (``unit``), those done earlier among them."""
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in rows:
        states[row.status] += 1
        if row.status == FAILED:
            reason = row.reason.replace(row.video, "VIDEO")
            reasons[reason if reason in reasons or len(reasons) < MOST_REASONS else "other reasons"] += 1
    done, rate = (progress.done, progress.rate) if progress else (0, 0.0)
    return Summary(
        states[OK], states[NONE], states[FAILED], tuple(reasons.most_common()), seconds, done, rate, where, unit
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
