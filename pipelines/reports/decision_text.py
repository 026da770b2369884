"""A run's "none of these" in words and as rows of a table, for its page and its card."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipelines.records.decision import HELD_OUT, Rate, RunDecision
from pipelines.records.run_file import RunRecord


class Row(NamedTuple):
    """How a set of clips fares: texts for a table."""

    name: str
    misses: str
    caught: str
    false_alarms: str
    ece: str


HEAD = Row(
    "clips",
    "misses: right, yet refused",
    "wrong, and refused",
    "false alarms: of no trained class, not refused",
    "calibration error before, after",
)


def rows(decision: RunDecision) -> list[Row]:
    """Return a row for the held-out clips and for each test set."""
    return [
        Row(
            "held out" if name == HELD_OUT else name,
            _rate(one.misses),
            _rate(one.caught),
            _rate(one.false_alarms),
            "-" if one.ece is None or one.ece_scaled is None else f"{100 * one.ece:.1f}, {100 * one.ece_scaled:.1f} %",
        )
        for name, one in decision.sets.items()
    ]


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "-"
    return f"{100 * rate.rate:.1f} % ({rate.clips} of {rate.of}; {100 * rate.low:.0f} to {100 * rate.high:.0f} %)"


def lines(record: RunRecord) -> Iterator[str]:
    """Yield sentences about a run's decision, which it has; how to read the table is the last of them."""
    decision = record.decision
    if decision is None:
        return
    if decision.threshold is None:
        yield "It always names one of its classes: no threshold was chosen."
    else:
        yield (
            f"A video is answered with “none of these” if even the most probable trained class is less probable than "
            f"{decision.threshold:.4g}, {_rule(decision)}. Other class names than the trained ones have no threshold."
        )
    if decision.temperature != 1:
        yield (
            f"Probabilities of predictions are those at temperature {decision.temperature:.3g}, with the least "
            "negative log-likelihood on the held-out clips; the scores of this run are those at temperature 1."
        )
    yield from (f"{note[:1].upper()}{note[1:]}." for note in decision.notes)
    chose = " and the epoch" if record.selection == "select" and record.history else ""
    yield (
        f"The held-out clips chose these values{chose}, so their row is optimistic; the rows of test sets are not. "
        "In brackets: clips, and the 95 % interval (Wilson). The calibration error is the expected one in 15 bins, of "
        "clips of trained classes."
    )


def _rule(decision: RunDecision) -> str:
    if decision.rule == "miss_rate" and decision.miss_rate is not None:
        return f"which refuses {100 * decision.miss_rate:g} % of the right held-out clips"
    return "which has the least sum of misses and false alarms on held-out clips and held-out classes"
