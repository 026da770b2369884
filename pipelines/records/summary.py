"""What runs that differ by their seed alone say together: means, deviations, counts, and a plain-text table.

Standard library only, so that scripts may import it at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pipelines.config.text import aligned
from pipelines.videos.catalog import DATASETS


def views(record: Record) -> str:
    """How a video is looked at: "8 frames, 4 x 3 views"."""
    seen = record["scoring"]
    stride = f" at stride {seen['stride']}" if seen.get("sampling") == "dense" else ""
    single = seen["clips"] * seen["crops"] == 1
    return f"{seen['frames']} frames{stride}, " + ("1 view" if single else f"{seen['clips']} x {seen['crops']} views")


Record = Mapping[str, Any]

DIRECTIONS = ("t2v", "v2t")
RANKED = ("R@1", "R@5", "R@10", "MdR", "MnR")
SELECTIONS = {
    "last": "the last",
    "select": "best on held-out training clips",
    "test-best": "best on the test list, as published",
}
"""``selection`` of a run to which epoch was kept."""

_TITLES = {"msrvtt": "MSRVTT", "msvd": "MSVD", "lsmdc": "LSMDC", "didemo": "DiDeMo"}
_METRICS = {"top1": "top-1", "top5": "top-5"}


class Column(NamedTuple):
    """A column of the papers' tables; ``metric`` is written as in ``vlmodels/assets/published.csv``.

    Metrics: base, novel, HM (b2n); top1, top5, with " K=16" for few-shot; "t2v R@1"... "v2t MnR" for retrieval.
    """

    dataset: str
    metric: str

    @property
    def is_rank(self) -> bool:
        """Whether it is a rank, of which less is better, and no share in percent."""
        return self.metric.endswith(("MdR", "MnR"))

    @property
    def has_chance(self) -> bool:
        """Whether the chance on record is that of this metric: it is of the first choice."""
        return self.metric.partition(" ")[0] in ("top1", "base", "novel") or self.metric.endswith("R@1")

    @property
    def heading(self) -> str:
        """The metric as tables print it."""
        name, space, rest = self.metric.partition(" ")
        return _METRICS.get(name, name) + space + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A metric over runs and lists: ``mean`` and the ``values`` behind it; counts of each run, over its lists."""

    values: tuple[float, ...]
    mean: float
    listed: tuple[int, ...]
    scored: tuple[int, ...]
    lists: int = 1
    chance: float | None = None

    @property
    def std(self) -> float:
        """Population standard deviation (ddof=0) of the values."""
        return statistics.pstdev(self.values)

    @property
    def text(self) -> str:
        """Mean, and deviation if there are several values."""
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if len(self.values) > 1 else "")

    @property
    def complete(self) -> bool:
        """Whether every listed video was scored."""
        return self.listed == self.scored

    @property
    def counts(self) -> str:
        """Scored of listed videos, and how many are quarantined; of each run where they differ."""
        pairs = dict.fromkeys(zip(self.scored, self.listed, strict=True))
        said = [f"{s:,} of {n:,}" + (f", {n - s:,} quarantined" if s < n else "") for s, n in pairs]
        return "; ".join(said)


class Summary:
    """Runs of one group.

    Several lists of one data set are averaged within and over runs: a cell's values are those of all lists of all runs.
    HM is that of the averaged base and novel accuracies (PROTOCOLS.md section 4); its values are the runs' own.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = tuple(sorted(records, key=lambda record: record["seed"]))
        self.first = self.records[0]
        self.protocol: str = self.first["protocol"]

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return str(self.first["config"]["backbone"]["name"])

    @property
    def shots(self) -> int | None:
        """K, where few videos train."""
        return self.first["config"]["protocol"]["shots"] if self.protocol in ("few_shot", "b2n") else None

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        return int(self.first["facts"]["trainable"])

    @property
    def started_from(self) -> str:
        """The run or registered model whose adapter training or scoring started from; "" without one."""
        return started_from(self.first)

    @property
    def seconds(self) -> float:
        """Mean duration of a run."""
        return statistics.fmean(record["seconds"]["total"] for record in self.records)

    @cached_property
    def cells(self) -> dict[Column, Cell]:
        """Every score, in the order of the papers' columns."""
        found: dict[Column, list[tuple[int, str, float]]] = {}
        for run, record in enumerate(self.records):
            for column, name, value in _values(record, self.shots):
                found.setdefault(column, []).append((run, name, value))
        cells = {column: self._cell(column, parts) for column, parts in found.items()}
        if self.protocol == "b2n":
            base, novel = (next(c for k, c in cells.items() if k.metric == name) for name in ("base", "novel"))
            own = tuple(statistics.harmonic_mean(pair) for pair in zip(base.values, novel.values, strict=True))
            cells[Column(self.first["dataset"], "HM")] = Cell(
                values=own,
                mean=statistics.harmonic_mean((base.mean, novel.mean)),
                listed=tuple(map(sum, zip(base.listed, novel.listed, strict=True))),
                scored=tuple(map(sum, zip(base.scored, novel.scored, strict=True))),
            )
        return cells

    def _cell(self, column: Column, parts: Sequence[tuple[int, str, float]]) -> Cell:
        def total(key: str) -> tuple[int, ...]:
            runs = range(len(self.records))
            return tuple(sum(self.records[r]["metrics"][n][key] for r, n, _ in parts if r == run) for run in runs)

        values = tuple(value for _, _, value in parts)
        chances = [self.records[run]["metrics"][name].get("chance") for run, name, _ in parts if column.has_chance]
        return Cell(
            values=values,
            mean=statistics.fmean(values),
            listed=total("n_listed"),
            scored=total("n_scored"),
            lists=len({name for _, name, _ in parts}),
            chance=None if not chances or None in chances else statistics.fmean(chances),
        )

    def sets(self, dataset: str) -> dict[str, str]:
        """Test sets of a data set: name in the record to name of the list."""
        return {
            name: list_of
            for name in self.first["classes"]
            for of, list_of in [_place(self.first, name)]
            if of == dataset
        }


def started_from(record: Record) -> str:
    """Name of what a run started from: the run of the adapter, where that is known, else as the user wrote it."""
    start = record["config"].get("start") or ""
    known = str(record.get("start", {}).get("name") or "")
    return known or (start if start.startswith("models:/") else start.rstrip("/").rpartition("/")[2])


def _place(record: Record, name: str) -> tuple[str, str]:
    """Data set and list of a test set."""
    dataset, slash, listed = name.partition("/")
    return (dataset, listed) if slash else (record["dataset"], name)


def _values(record: Record, shots: int | None) -> Iterator[tuple[Column, str, float]]:
    """Column, test set and value of each score of a run."""
    protocol = record["protocol"]
    for name in record["classes"]:
        dataset, _ = _place(record, name)
        metrics = record["metrics"][name]
        if protocol == "b2n":
            yield Column(dataset, name), name, metrics["top1"]
        elif protocol == "retrieval":
            for way in DIRECTIONS:
                yield from ((Column(dataset, f"{way} {rank}"), name, metrics[way][rank]) for rank in RANKED)
        else:
            suffix = f" K={shots}" if protocol == "few_shot" else ""
            yield Column(dataset, f"top1{suffix}"), name, metrics["top1"]
            if protocol != "zero_shot" or dataset == "k600":  # as the papers' tables
                yield Column(dataset, f"top5{suffix}"), name, metrics["top5"]


def summarise(records: Iterable[Record]) -> list[Summary]:
    """One summary for each group of runs, in order of appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    return [Summary(members) for members in groups.values()]


def title(dataset: str) -> str:
    """A data set's name as the papers print it; own names stay."""
    return DATASETS[dataset].title if dataset in DATASETS else _TITLES.get(dataset.lower().replace("-", ""), dataset)


def columns_of(summaries: Iterable[Summary]) -> list[Column]:
    """Columns that any of them fills, data set by data set."""
    every = dict.fromkeys(column for summary in summaries for column in summary.cells)
    order = list(dict.fromkeys(column.dataset for column in every))
    return sorted(every, key=lambda column: order.index(column.dataset))


def headings(columns: Sequence[Column], protocol: str) -> list[str]:
    """Column headings: the metric, the data set or both, as far as they tell columns apart."""
    if protocol == "zero_shot":
        return [title(c.dataset) + ("" if c.metric == "top1" else f" {c.heading}") for c in columns]
    several = len({column.dataset for column in columns}) > 1
    return [(f"{title(c.dataset)} " if several else "") + c.heading for c in columns]


def table(records: Sequence[Record], *, names: Mapping[str, str] | None = None) -> str:
    """Plain-text tables with a row for each group of seeds; what has other columns has a table of its own.

    Args:
        records: contents of ``run.json``.
        names: run name to what the row is called instead of its method; that of a group's first seed counts.
    """
    alike: dict[tuple[str, tuple[Column, ...]], list[Summary]] = {}
    for summary in summarise(records):
        alike.setdefault((summary.protocol, tuple(summary.cells)), []).append(summary)
    tables = []
    for (protocol, columns), summaries in alike.items():
        on = ", ".join(dict.fromkeys(title(column.dataset) for column in columns))
        tables.append((f"{protocol} on {on}\n" if len(alike) > 1 else "") + _table(summaries, columns, names or {}))
    return "\n\n".join(tables)


def _table(summaries: Sequence[Summary], columns: Sequence[Column], names: Mapping[str, str]) -> str:
    seeds = any(len(s.records) > 1 for s in summaries)
    gaps = not all(cell.complete for s in summaries for cell in s.cells.values())
    rows = [["method", *headings(columns, summaries[0].protocol), "trainable", "seconds"]]
    for s in summaries:
        scores = [s.cells[column].text for column in columns]
        label = names.get(s.first["name"], s.first["method"])
        rows.append([label, *scores, f"{s.trainable:,}", f"{s.seconds:.0f}"])
    if seeds:
        rows = [
            [*row, end] for row, end in zip(rows, ["seeds", *(str(len(s.records)) for s in summaries)], strict=True)
        ]
    if gaps:
        rows = [[*row, end] for row, end in zip(rows, ["scored", *map(_gaps, summaries)], strict=True)]
    return "\n".join(aligned(rows))


def _gaps(summary: Summary) -> str:
    """Scored and listed videos of each test set that has some that could not be scored."""
    said = {
        f"{name} {metrics['n_scored']}/{metrics['n_listed']}": None
        for record in summary.records
        for name in record["classes"]
        for metrics in [record["metrics"][name]]
        if metrics["n_scored"] < metrics["n_listed"]
    }
    return ", ".join(said) or "all"
