"""The tables of a sweep, from its records: each setting with its trials, and columns of their results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pipelines.config.text import aligned
from pipelines.records import summary
from pipelines.records.summary import Scores
from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.records import AblationRecord, SweepRecord, TrialRecord
from pipelines.sweeps.report.rows import NONE, SettingRow, metric_name, setting_rows, trials_summary

_SHOWN = 20  # settings of a search in plain text; the page has all


class TableColumn(NamedTuple):
    """A column of a sweep's table.

    Attributes:
        head: its heading.
        texts: a text for each row.
        best: the rows with the best value.
        kind: number, text, key (in a fixed-width font) or message (that may be shortened).
        group: the heading above several columns.
        printed: whether its numbers are the paper's.
    """

    head: str
    texts: Sequence[str]
    best: frozenset[int] = frozenset()
    kind: str = "number"
    group: str = ""
    printed: bool = False


def text_of(metric: str, value: float | None) -> str:
    """Return a number as it is shown: percent with a decimal, parameters in full."""
    if value is None:
        return NONE
    if metric.startswith("select."):
        return f"{value:.1f}"
    return f"{value:,.0f}" if metric == "cost.trainable" or value >= 1000 else f"{value:.3g}"


def score_columns(summaries: Iterable[Scores | None]) -> list[tuple[summary.Column, str]]:
    """Return the test scores that any of them has, with headings; of retrieval recall at 1 alone."""
    known = [s for s in summaries if s is not None]
    if not known:
        return []
    columns, protocol = summary.columns_of(known), known[0].protocol
    if protocol == "retrieval":
        columns = [column for column in columns if column.metric.endswith("R@1")]
    heads = summary.headings(columns, protocol)
    if protocol not in ("retrieval", "zero_shot"):  # as the papers write them
        heads = [head[:1].upper() + head[1:] for head in heads]
    return list(zip(columns, heads, strict=True))


def main_score_column(columns: Sequence[tuple[summary.Column, str]]) -> tuple[summary.Column, str]:
    """Return the harmonic mean of base and novel, else the first column."""
    return next((pair for pair in columns if pair[0].metric == "HM"), columns[0])


# --------------------------------------------------------------------------------------------------- columns


def table_columns(sweep: SweepRecord, rows: Sequence[SettingRow]) -> list[TableColumn]:
    """Return all columns of the settings' table: the paper's layout for an ablation, else swept settings one by one."""
    if sweep.ablation is not None:
        return _ablation_columns(sweep.ablation, sweep, rows)
    ranks = TableColumn("#", [str(place) for place in range(1, len(rows) + 1)])
    several = len(sweep.objectives) > 1
    return [
        ranks,
        *_swept_columns(rows),
        *([_front_column(sweep, rows)] if several else []),
        *_objective_columns(sweep, rows),
        *_score_columns_of(sweep, rows),
        *_cost_columns(sweep, rows, ("cost.trainable", "cost.step_seconds")),
        *_end_columns(rows),
    ]


def _ablation_columns(ablation: AblationRecord, sweep: SweepRecord, rows: Sequence[SettingRow]) -> list[TableColumn]:
    same = [f" (as {row.same_as})" if row.same_as else "" for row in rows]
    settings = [label_of(row.setting) + suffix for row, suffix in zip(rows, same, strict=True)]
    return [
        TableColumn("", [row.label for row in rows], kind="text"),
        TableColumn("setting", settings, kind="key"),
        *_score_columns_of(sweep, rows),
        *_printed_columns(ablation, rows),
        *_objective_columns(sweep, rows),
        *_cost_columns(sweep, rows, ("cost.trainable",)),
        *_end_columns(rows),
    ]


def _swept_columns(rows: Sequence[SettingRow]) -> Iterator[TableColumn]:
    keys = list(dict.fromkeys(key for row in rows for key in row.setting))
    for key, name in zip(keys, key_names(keys), strict=True):
        yield TableColumn(name, [row.setting.get(key, NONE) for row in rows], kind="key")


def key_names(keys: Sequence[str]) -> list[str]:
    """Return the last part of each key, or all of it where last parts are alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def _front_column(sweep: SweepRecord, rows: Sequence[SettingRow]) -> TableColumn:
    """Mark the settings that no other beats in all objectives."""
    modes = [objective.mode for objective in sweep.objectives]
    means = [[row.mean(objective.metric) for objective in sweep.objectives] for row in rows]
    whole = [place for place, values in enumerate(means) if None not in values]
    front = {whole[place] for place in pareto([[v for v in means[n] if v is not None] for n in whole], modes)}
    return TableColumn("front", ["yes" if place in front else "" for place in range(len(rows))], kind="text")


def _objective_columns(sweep: SweepRecord, rows: Sequence[SettingRow]) -> list[TableColumn]:
    return [_measured_column(sweep, rows, objective.metric, objective.mode) for objective in sweep.objectives]


def _cost_columns(sweep: SweepRecord, rows: Sequence[SettingRow], metrics: Sequence[str]) -> list[TableColumn]:
    """Make columns of what settings cost, unless the cost is an objective and has its column already."""
    known = {objective.metric for objective in sweep.objectives}
    return [_measured_column(sweep, rows, metric, None) for metric in metrics if metric not in known]


def _measured_column(sweep: SweepRecord, rows: Sequence[SettingRow], metric: str, mode: str | None) -> TableColumn:
    best = _best([row.mean(metric) for row in rows], mode) if mode else frozenset()
    return TableColumn(metric_name(metric, sweep), [_spread(row, metric) for row in rows], best)


def _spread(row: SettingRow, metric: str) -> str:
    """Return mean and population deviation over finished seeds; in brackets where an unfinished trial ended."""
    values = row.values(metric)
    if not values:
        last = row.last(metric)
        known = metric == "cost.trainable" or last is None  # known before training
        return text_of(metric, last) if known else f"({text_of(metric, last)})"
    text = text_of(metric, statistics.fmean(values))
    return f"{text} ± {statistics.pstdev(values):.1f}" if len(values) > 1 and metric.startswith("select.") else text


def _score_columns_of(sweep: SweepRecord, rows: Sequence[SettingRow]) -> Iterator[TableColumn]:
    summaries = [trials_summary(sweep, row.trials) for row in rows]
    for column, head in score_columns(summaries):
        cells = [s.cells.get(column) if s else None for s in summaries]
        best = _best([cell.mean if cell else None for cell in cells], "min" if column.is_rank else "max")
        texts = [cell.text if cell else NONE for cell in cells]
        yield TableColumn(head, texts, best, group=f"ours, test: {summary.title(sweep.dataset)}")


def _printed_columns(ablation: AblationRecord, rows: Sequence[SettingRow]) -> Iterator[TableColumn]:
    if not any(row.printed for row in rows):
        return
    for place, head in enumerate(ablation.columns):
        values = [row.printed[place] if row.printed else None for row in rows]
        digits = max(len(repr(float(value)).partition(".")[2]) for value in values if value is not None)
        texts = [NONE if value is None else f"{value:.{digits}f}" for value in values]
        group = f"printed: {ablation.source}, {ablation.data}"
        yield TableColumn(head, texts, _best(values, "max"), group=group, printed=True)


def _end_columns(rows: Sequence[SettingRow]) -> Iterator[TableColumn]:
    yield TableColumn("status", [row.status for row in rows], kind="text")
    if any(row.message for row in rows):
        yield TableColumn("message", [row.message for row in rows], kind="message")


def pareto(points: Sequence[Sequence[float]], modes: Sequence[str]) -> list[int]:
    """Return the numbers of the points that no other dominates: as good in all, better in one; equal points all stay.

    Args:
        points: a value for each objective.
        modes: ``max`` or ``min`` for each objective.
    """
    signs = [1 if mode == "max" else -1 for mode in modes]
    gains = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in points]
    return [
        place
        for place, mine in enumerate(gains)
        if not any(other != mine and all(o >= m for o, m in zip(other, mine, strict=True)) for other in gains)
    ]


def _best(values: Sequence[float | None], mode: str | None) -> frozenset[int]:
    """Return the rows with the best of several values; none where there is nothing to compare."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return frozenset()
    best = max(known) if mode == "max" else min(known)
    return frozenset(place for place, value in enumerate(values) if value == best)


# -------------------------------------------------------------------------------------------------- plain text


def sweep_table(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> str:
    """Return the settings' table in plain text: an ablation in the paper's order, else the best 20 settings.

    Args:
        sweep: the sweep's record.
        trials: the trials' records; none of them need have ended well.
    """
    if not trials:
        return "no trial has ended yet"
    every = setting_rows(sweep, trials)
    rows = every if sweep.ablation else every[:_SHOWN]
    columns = [
        column
        for column in table_columns(sweep, rows)
        if column.kind != "message" and any(map(_has_value, column.texts))
    ]
    if all(row.done for row in rows):
        columns = [column for column in columns if column.head != "status"]
    heads = [f"printed {column.head}" if column.printed else column.head for column in columns]
    lines = list(_lines(heads, columns))
    if len(every) > len(rows):
        lines.append(f"... and {len(every) - len(rows)} more")
    if sweep.ablation is not None and any(column.printed for column in columns):
        lines.append(f"printed: {sweep.ablation.source}, {sweep.ablation.data}")
    return "\n".join(lines)


def _has_value(text: str) -> bool:
    return text not in ("", NONE)


def _lines(heads: Sequence[str], columns: Sequence[TableColumn]) -> Iterator[str]:
    table = [heads, *zip(*([" ".join(text.split()) for text in column.texts] for column in columns), strict=True)]
    return aligned(table, left=[place for place, column in enumerate(columns) if column.kind != "number"])
