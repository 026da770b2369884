"""A run's "none of these" in words and as rows of a table, for its page and its card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.records.decision import HELD_OUT, Rate, RunDecision, SetDecision
from pipelines.records.run_file import RunRecord


class Cell(NamedTuple):
    """A number, and what belongs to it in small letters."""

    text: str
    small: str = ""


HEAD = ("clips", "misses", "wrong, refused", "false alarms", "calibration error")
LEGEND = (
    "Misses are right answers that are refused; false alarms are videos of no trained class that are not; with each "
    "rate its clips and its 95 % interval (Wilson). Calibration error: the expected one in 15 bins, of videos of "
    "trained classes, before and after the temperature."
)


def rows(decision: RunDecision) -> list[tuple[str, list[Cell]]]:
    """Return a row for the held-out clips and for each test set: its name, and a cell for each further ``HEAD``."""
    return [
        (
            "held out" if name == HELD_OUT else name,
            [*map(_rate, (one.misses, one.caught, one.false_alarms)), _error(one)],
        )
        for name, one in decision.sets.items()
    ]


def _rate(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell("-")
    return Cell(
        f"{100 * rate.rate:.1f} %", f"{rate.clips} of {rate.of}, {100 * rate.low:.0f} to {100 * rate.high:.0f} %"
    )


def _error(one: SetDecision) -> Cell:
    if one.ece is None or one.ece_scaled is None:
        return Cell("-")
    return Cell(f"{100 * one.ece:.1f}, {100 * one.ece_scaled:.1f} %")


def lines(record: RunRecord) -> Iterator[str]:
    """Yield sentences about a run's decision; none if it has none."""
    decision = record.decision
    if decision is None:
        return
    if decision.threshold is None:
        yield "It always names one of its classes: no threshold was chosen."
    else:
        yield (
            f"A video is answered with “none of these” if even the most probable trained class is less probable than "
            f"{decision.threshold:.4g}, which refuses at most {100 * decision.miss_rate:g} % of the right held-out "
            "clips (protocol.miss_rate). Other class names than the trained ones have no threshold."
        )
    if decision.temperature != 1:
        yield (
            f"Probabilities of predictions are those at temperature {decision.temperature:.3g}, with the least "
            "negative log-likelihood on the held-out clips; the scores of this run are those at temperature 1."
        )
    yield from (f"{note[:1].upper()}{note[1:]}." for note in decision.notes)
    chose = " and the epoch" if record.selection == "select" and record.history else ""
    tests = "the first test set chose the epoch" if record.selection == "test-best" else "those of test sets are not"
    yield f"The held-out clips chose these values{chose}, so their rates are optimistic; {tests}."
