"""Rows of a sweep's tables: the settings that were tried, with their results."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.records.run_file import DIRECTIONS, RANKED, SetMetrics
from pipelines.records.summary import ScoredRun, Scores, shots_of
from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.records import AblationRecord, SweepRecord, TrialRecord

METRIC_NAMES = {
    "select.top1": "held-out top-1",
    "select.top5": "held-out top-5",
    "select.novel": "held-out novel",
    "select.hm": "held-out HM",
    "cost.trainable": "trainable",
    "cost.step_seconds": "step (s)",
    "cost.gmacs_video": "GMACs a view",
    "cost.peak_memory_mb": "peak memory (MB)",
}

NONE = "-"
"""What a cell without a value shows."""


@dataclass(frozen=True)
class SettingRow:
    """A setting and its trials so far, one for each seed; of an ablation the row's label and printed numbers too.

    Attributes:
        same_as: label of an earlier row of the same setting; "" without one.
    """

    label: str
    setting: Mapping[str, str]
    trials: Sequence[TrialRecord]
    printed: Sequence[float] = ()
    same_as: str = ""

    def values(self, metric: str) -> list[float]:
        """Return a metric of the finished trials, by its dotted name."""
        return _values([trial for trial in self.trials if trial.finished], metric)

    def mean(self, metric: str) -> float | None:
        """Return its mean over finished trials; None without any."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def last(self, metric: str) -> float | None:
        """Return its mean where the trials ended that did not finish; None without any."""
        values = _values([trial for trial in self.trials if not trial.finished], metric)
        return statistics.fmean(values) if values else None

    @property
    def done(self) -> bool:
        """Whether it has trials and all finished; a line that is only printed has none to come."""
        return all(trial.finished for trial in self.trials) and bool(self.trials or not self.setting)

    @property
    def status(self) -> str:
        """How its trials ended, with counts where there are several."""
        if not self.trials:
            return "not run" if self.setting else NONE
        return count_statuses(self.trials) if len(self.trials) > 1 else self.trials[0].status

    @property
    def message(self) -> str:
        """Why trials of it did not finish."""
        return "; ".join(dict.fromkeys(trial.message for trial in self.trials if trial.message))


def _values(trials: Iterable[TrialRecord], metric: str) -> list[float]:
    return [value for trial in trials if (value := finite_number(trial, metric)) is not None]


def finite_number(trial: TrialRecord, metric: str) -> float | None:
    """Return a number of a trial's metrics or cost; None if there is none or it is not finite."""
    value = trial.numbers().get(metric)
    return value if value is not None and math.isfinite(value) else None


def count_statuses(trials: Iterable[TrialRecord]) -> str:
    """Return how many trials ended in which way: ``5 finished, 1 pruned``."""
    counts = Counter(trial.status for trial in trials)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def metric_name(metric: str, sweep: SweepRecord) -> str:
    """Return a metric as a heading; of pairs, what is held out is measured by text-to-video recall."""
    name = METRIC_NAMES.get(metric, metric)
    return name.replace("top-", "R@") if sweep.protocol == "retrieval" else name


def held_out_metric(sweep: SweepRecord) -> str:
    """Return the first objective that is an accuracy on held-out clips."""
    metrics = [objective.metric for objective in sweep.objectives]
    return next((metric for metric in metrics if metric.startswith("select.")), "select.top1")


def natural_key(text: str) -> tuple[bool, float, str]:
    """Return a sort key: numbers by their value, before other texts."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return (False, value, "") if math.isfinite(value) else (True, 0.0, text)


# ------------------------------------------------------------------------------------------------------ rows


def setting_rows(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> list[SettingRow]:
    """Return an ablation's rows in the paper's order; else the settings, best first by the first objective."""
    if sweep.ablation is not None:
        return list(_ablation_rows(sweep.ablation, sweep, trials))
    metric = sweep.objectives[0].metric
    sign = -1 if sweep.objectives[0].mode == "max" else 1

    def place(row: SettingRow) -> tuple[bool, bool, float]:
        mean, last = row.mean(metric), row.last(metric)
        value = last if mean is None else mean
        return mean is None, value is None, sign * (value or 0.0)

    rows = [SettingRow(group[0].label, group[0].setting, group) for group in _by_setting(trials)]
    return sorted(rows, key=place)


def _ablation_rows(ablation: AblationRecord, sweep: SweepRecord, trials: Sequence[TrialRecord]) -> Iterator[SettingRow]:
    """Yield a row for each setting of each of the paper's rows: several where a grid is laid over the ablation."""
    varied = sweep.space.keys() - {key for row in ablation.rows for key in row.setting}
    if ablation.baseline is not None:
        yield SettingRow(ablation.baseline.label, {}, (), ablation.baseline.printed)
    seen: dict[frozenset[tuple[str, str]], str] = {}
    for row in ablation.rows:
        fixed = dict(row.setting)
        mine = [t for t in trials if {k: v for k, v in t.setting.items() if k not in varied} == fixed]
        for group in _by_setting(mine) or [[]]:
            setting = group[0].setting if group else fixed
            more = label_of({key: value for key, value in setting.items() if key in varied})
            label = f"{row.label}, {more}" if more else row.label
            first = seen.setdefault(frozenset(setting.items()), label)
            yield SettingRow(label, setting, group, row.printed, "" if first == label else first)


def _by_setting(trials: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Group trials by setting, each group by seed; settings in natural order, whichever ended first."""
    groups: dict[frozenset[tuple[str, str]], list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.seed):
        groups.setdefault(frozenset(trial.setting.items()), []).append(trial)
    return sorted(groups.values(), key=lambda group: [natural_key(value) for value in group[0].setting.values()])


# --------------------------------------------------------------------------------------------------- test scores


class Scored(Protocol):
    """A trial that finished, or a run of the winner."""

    @property
    def seed(self) -> int:
        """Its seed."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics by test set."""


def trials_summary(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> Scores | None:
    """Return the test scores over the finished trials; None where nothing was scored on test lists."""
    return runs_summary(sweep, [trial for trial in trials if trial.finished])


def runs_summary(sweep: SweepRecord, runs: Sequence[Scored]) -> Scores | None:
    """Return the test scores over runs; None where nothing was scored on test lists."""
    records = [_scored(sweep, run) for run in runs]
    scored = [record for record in records if record is not None]
    return Scores(scored) if scored else None


def _scored(sweep: SweepRecord, run: Scored) -> ScoredRun | None:
    """Return a run's scores on the test lists; None without any."""
    retrieval = sweep.protocol == "retrieval"
    sets = {
        name: SetMetrics.model_validate({"n_listed": 0, "n_scored": 0, **found})
        for name, found in run.metrics.items()
        if name != "select" and isinstance(found, Mapping) and _whole(found, retrieval=retrieval)
    }
    if not sets or (sweep.protocol == "b2n" and not {"base", "novel"} <= sets.keys()):
        return None
    return ScoredRun(
        protocol=sweep.protocol,
        dataset=sweep.dataset,
        seed=run.seed,
        shots=shots_of(sweep.protocol, sweep.config["protocol"]["shots"]),
        classes=dict.fromkeys(sets, ()),
        metrics=sets,
    )


def _whole(found: Mapping[str, Any], *, retrieval: bool) -> bool:
    parts = [found.get(way) or {} for way in DIRECTIONS] if retrieval else [found]
    keys = RANKED if retrieval else ("top1", "top5")
    return all(math.isfinite(part.get(key, math.nan)) for part in parts for key in keys)
