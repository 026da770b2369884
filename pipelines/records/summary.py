"""Runs that differ only in their seed, summed up: means, deviations, counts, and a plain-text table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pipelines.config.text import aligned
from pipelines.records.run_file import DIRECTIONS, RANKED, RunRecord, SetMetrics
from pipelines.videos.catalog import DATASETS
from vlmodels.published import CLASS_NAMES

_TITLES = {"msrvtt": "MSRVTT", "msvd": "MSVD", "lsmdc": "LSMDC", "didemo": "DiDeMo"}
_METRICS = {"top1": "top-1", "top5": "top-5"}


def table(records: Sequence[RunRecord], *, names: Mapping[str, str] | None = None) -> str:
    """Return plain-text tables with a row for each group of seeds; other columns make a table of their own.

    Args:
        records: records of finished runs.
        names: run name to what the row is called instead of its method; that of a group's first seed counts.
    """
    alike: dict[tuple[str, tuple[Column, ...]], list[Summary]] = {}
    for summary in summarise(records):
        alike.setdefault((summary.protocol, tuple(summary.cells)), []).append(summary)
    tables = []
    for (protocol, columns), summaries in alike.items():
        datasets = ", ".join(dict.fromkeys(title(column.dataset) for column in columns))
        heading = f"{protocol} on {datasets}\n" if len(alike) > 1 else ""
        tables.append(heading + _table(summaries, columns, names or {}))
    return "\n\n".join(tables)


def _table(summaries: Sequence[Summary], columns: Sequence[Column], names: Mapping[str, str]) -> str:
    rows = [["method", *headings(columns, summaries[0].protocol), "trainable", "seconds"]]
    for summary in summaries:
        scores = [summary.cells[column].text for column in columns]
        label = names.get(summary.first.name, summary.first.method)
        rows.append([label, *scores, f"{summary.trainable:,}", f"{summary.seconds:.0f}"])
    if any(len(summary.records) > 1 for summary in summaries):
        rows = _with_column(rows, ["seeds", *(str(len(summary.records)) for summary in summaries)])
    if not all(cell.complete for summary in summaries for cell in summary.cells.values()):
        rows = _with_column(rows, ["scored", *map(_gaps, summaries)])
    return "\n".join(aligned(rows))


def _with_column(rows: Sequence[Sequence[str]], column: Sequence[str]) -> list[list[str]]:
    return [[*row, end] for row, end in zip(rows, column, strict=True)]


def _gaps(summary: Summary) -> str:
    """Return scored and listed videos of each test set that has some that could not be scored."""
    gaps = {
        f"{name} {metrics.n_scored}/{metrics.n_listed}": None
        for record in summary.records
        for name in record.classes
        for metrics in [record.metrics.tests[name]]
        if metrics.n_scored < metrics.n_listed
    }
    return ", ".join(gaps) or "all"


def summarise(records: Iterable[RunRecord]) -> list[Summary]:
    """Return one summary for each group of runs, in order of appearance."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    return [Summary(members) for members in groups.values()]


# --------------------------------------------------------------------------------------------------------- columns


class Column(NamedTuple):
    """A column of the papers' tables; ``metric`` is written as in ``vlmodels/assets/published.csv``.

    Metrics: base, novel, HM (b2n); top1, top5, with " K=16" for few-shot; "t2v R@1"... "v2t MnR" for retrieval.
    """

    dataset: str
    metric: str

    @property
    def is_rank(self) -> bool:
        """Whether it is a rank, where less is better, and not a share in percent."""
        return self.metric.endswith(("MdR", "MnR"))

    @property
    def has_chance(self) -> bool:
        """Whether the recorded chance applies to this metric: chance is that of the first choice."""
        return self.metric.partition(" ")[0] in ("top1", "base", "novel") or self.metric.endswith("R@1")

    @property
    def heading(self) -> str:
        """The metric as tables print it."""
        name, space, rest = self.metric.partition(" ")
        return _METRICS.get(name, name) + space + rest


def columns_of(scores: Iterable[Scores]) -> list[Column]:
    """Return the columns that any of them fills, data set by data set."""
    every = dict.fromkeys(column for each in scores for column in each.cells)
    order = list(dict.fromkeys(column.dataset for column in every))
    return sorted(every, key=lambda column: order.index(column.dataset))


def headings(columns: Sequence[Column], protocol: str) -> list[str]:
    """Return column headings: the metric, the data set, or both where one does not tell columns apart."""
    if protocol == "zero_shot":
        return [title(c.dataset) + ("" if c.metric == "top1" else f" {c.heading}") for c in columns]
    several = len({column.dataset for column in columns}) > 1
    return [(f"{title(c.dataset)} " if several else "") + c.heading for c in columns]


def title(dataset: str) -> str:
    """Return a data set's name as the papers print it; own names stay."""
    return DATASETS[dataset].title if dataset in DATASETS else _TITLES.get(dataset.lower().replace("-", ""), dataset)


# ---------------------------------------------------------------------------------------------------------- scores


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
        return "; ".join(_count(scored, listed) for scored, listed in pairs)


def _count(scored: int, listed: int) -> str:
    quarantined = f", {listed - scored:,} quarantined" if scored < listed else ""
    return f"{scored:,} of {listed:,}{quarantined}"


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """A run's scores by test set; ``shots`` is K where few videos train, ``classes`` the names of each set's."""

    protocol: str
    dataset: str
    seed: int
    shots: int | None
    classes: Mapping[str, Sequence[str]]
    metrics: Mapping[str, SetMetrics]

    @classmethod
    def from_record(cls, record: RunRecord) -> ScoredRun:
        """Take the scores of a finished run."""
        return cls(
            protocol=record.protocol,
            dataset=record.dataset,
            seed=record.seed,
            shots=shots_of(record.protocol, record.config.protocol.shots),
            classes=record.classes,
            metrics=record.metrics.tests,
        )

    def place(self, name: str) -> tuple[str, str]:
        """Return data set and list of a test set."""
        dataset, slash, listed = name.partition("/")
        return (dataset, listed) if slash else (self.dataset, name)

    def values(self) -> Iterator[tuple[Column, str, float]]:
        """Yield column, test set and value of each score."""
        for name in self.classes:
            dataset, _ = self.place(name)
            metrics = self.metrics[name]
            if self.protocol == "b2n":
                yield Column(dataset, name), name, metrics.top1
            elif self.protocol == "retrieval":
                for direction in DIRECTIONS:
                    ranks = getattr(metrics, direction)
                    yield from ((Column(dataset, f"{direction} {rank}"), name, ranks[rank]) for rank in RANKED)
            else:
                suffix = f" K={self.shots}" if self.protocol == "few_shot" else ""
                yield Column(dataset, f"top1{suffix}"), name, metrics.top1
                if self.protocol != "zero_shot" or dataset == "k600":  # as in the papers' tables
                    yield Column(dataset, f"top5{suffix}"), name, metrics.top5


def shots_of(protocol: str, shots: int) -> int | None:
    """Return K for the protocols that train on few videos, else None."""
    return shots if protocol in ("few_shot", "b2n") else None


class Scores:
    """Scores of runs that differ only in their seed.

    Several lists of one data set are averaged within and over runs: a cell's values are those of all lists of all runs.
    HM is that of the averaged base and novel accuracies (PROTOCOLS.md section 4); its values are the runs' own.
    """

    def __init__(self, runs: Sequence[ScoredRun]) -> None:
        self.runs = tuple(sorted(runs, key=lambda run: run.seed))
        self.protocol = self.runs[0].protocol
        self.shots = self.runs[0].shots

    @cached_property
    def cells(self) -> dict[Column, Cell]:
        """Every score, in the order of the papers' columns."""
        found: dict[Column, list[tuple[int, str, float]]] = {}
        for number, run in enumerate(self.runs):
            for column, name, value in run.values():
                found.setdefault(column, []).append((number, name, value))
        cells = {column: self._cell(column, parts) for column, parts in found.items()}
        if self.protocol == "b2n":
            base, novel = (next(c for k, c in cells.items() if k.metric == name) for name in ("base", "novel"))
            cells[Column(self.runs[0].dataset, "HM")] = _harmonic(base, novel)
        return cells

    def _cell(self, column: Column, parts: Sequence[tuple[int, str, float]]) -> Cell:
        """Sum up a column; ``parts`` are number of the run, test set and value of each score."""
        tested = [(run, self.runs[run].metrics[name]) for run, name, _ in parts]
        numbers = range(len(self.runs))
        values = tuple(value for _, _, value in parts)
        chances = [metrics.chance for _, metrics in tested if column.has_chance]
        known = [chance for chance in chances if chance is not None]
        return Cell(
            values=values,
            mean=statistics.fmean(values),
            listed=tuple(sum(metrics.n_listed for run, metrics in tested if run == number) for number in numbers),
            scored=tuple(sum(metrics.n_scored for run, metrics in tested if run == number) for number in numbers),
            lists=len({name for _, name, _ in parts}),
            chance=statistics.fmean(known) if known and len(known) == len(chances) else None,
        )

    def sets(self, dataset: str) -> dict[str, str]:
        """Return the test sets of a data set: name in the record to name of the list."""
        first = self.runs[0]
        places = {name: first.place(name) for name in first.classes}
        return {name: listed for name, (of_dataset, listed) in places.items() if of_dataset == dataset}


def _harmonic(base: Cell, novel: Cell) -> Cell:
    own = tuple(statistics.harmonic_mean(pair) for pair in zip(base.values, novel.values, strict=True))
    return Cell(
        values=own,
        mean=statistics.harmonic_mean((base.mean, novel.mean)),
        listed=tuple(map(sum, zip(base.listed, novel.listed, strict=True))),
        scored=tuple(map(sum, zip(base.scored, novel.scored, strict=True))),
    )


class Summary(Scores):
    """Finished runs of one group, by seed."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.records = tuple(sorted(records, key=lambda record: record.seed))
        self.first = self.records[0]
        super().__init__([ScoredRun.from_record(record) for record in self.records])

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.first.config.backbone.name

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return self.first.facts.trainable

    @property
    def started_from(self) -> str:
        """The run or registered model whose adapter training or scoring started from; "" without one."""
        return started_from(self.first)

    @property
    def seconds(self) -> float:
        """Mean duration of a run."""
        return statistics.fmean(record.seconds.total for record in self.records)


def started_from(record: RunRecord) -> str:
    """Return the name of what a run started from: the adapter's run where it is known, else as the user wrote it."""
    start = record.config.start or ""
    return record.start.name or (start if start.startswith("models:/") else start.rstrip("/").rpartition("/")[2])


def statistics_text(record: RunRecord) -> str:
    """Return whose mean and deviation a run's frames were normalised by."""
    name = record.config.backbone.statistics
    return "the weights' own mean and deviation" if name == "own" else f"the mean and deviation of {name}"


def class_names_text(record: RunRecord) -> str:
    """Return where a run's class names come from, as its settings say; "" where captions stand in for classes."""
    return "" if record.protocol == "retrieval" else CLASS_NAMES[record.config.protocol.class_names]


def views_text(record: RunRecord) -> str:
    """Return how a video is looked at: "8 frames, 4 x 3 views"."""
    scoring = record.scoring
    stride = f" at stride {scoring.stride}" if scoring.sampling == "dense" else ""
    views = "1 view" if scoring.clips * scoring.crops == 1 else f"{scoring.clips} x {scoring.crops} views"
    return f"{scoring.frames} frames{stride}, {views}"
