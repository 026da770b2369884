"""Rows of a sweep's tables: the settings that were tried, with their results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.records.run_file import DIRECTIONS, RANKED, SetMetrics
from pipelines.records.summary import ScoredRun, Scores, shots_of
from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.records import numbers

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

Record = Mapping[str, Any]  # a sweep's or a trial's

NONE = "-"
"""What a cell without a value shows."""


@dataclass(frozen=True)
class Tried:
    """A setting and its trials so far, one for each seed; of an ablation the row's label and printed numbers too."""

    label: str
    setting: Mapping[str, str]
    trials: Sequence[Record]
    printed: Sequence[float] = ()
    same_as: str = ""  # label of an earlier row of the same setting

    def values(self, metric: str) -> list[float]:
        """A metric of the finished trials, by its dotted name."""
        return self._known(metric, finished=True)

    def mean(self, metric: str) -> float | None:
        """Its mean over finished trials; None without any."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def last(self, metric: str) -> float | None:
        """Its mean where those trials ended that did not finish."""
        values = self._known(metric, finished=False)
        return statistics.fmean(values) if values else None

    def _known(self, metric: str, *, finished: bool) -> list[float]:
        chosen = [trial for trial in self.trials if (trial["status"] == "finished") == finished]
        return [value for trial in chosen if (value := number(trial, metric)) is not None]

    @property
    def done(self) -> bool:
        """Whether it has trials and all finished; a line that is only printed has none to come."""
        return all(trial["status"] == "finished" for trial in self.trials) and bool(self.trials or not self.setting)

    @property
    def status(self) -> str:
        """How its trials ended, with counts where there are several."""
        if not self.trials:
            return "not run" if self.setting else NONE
        return counts(self.trials) if len(self.trials) > 1 else str(self.trials[0]["status"])

    @property
    def message(self) -> str:
        """What its trials say of how they ended."""
        return "; ".join(dict.fromkeys(str(trial["message"]) for trial in self.trials if trial["message"]))


def number(trial: Record, metric: str) -> float | None:
    """A number of a trial's metrics or cost; None if there is none or it is not finite."""
    value = numbers(trial).get(metric)
    return value if value is not None and math.isfinite(value) else None


def counts(trials: Iterable[Record]) -> str:
    """``5 finished, 1 pruned``."""
    ended: dict[str, int] = {}
    for trial in trials:
        ended[trial["status"]] = ended.get(trial["status"], 0) + 1
    return ", ".join(f"{count} {status}" for status, count in ended.items())


def name_of(metric: str, sweep: Record) -> str:
    """A metric as a heading; of pairs, what is held out is measured by text-to-video recall."""
    name = METRIC_NAMES.get(metric, metric)
    return name.replace("top-", "R@") if sweep["protocol"] == "retrieval" else name


def held_out(sweep: Record) -> str:
    """The first objective that is an accuracy on held-out clips."""
    metrics = [str(objective["metric"]) for objective in sweep["objectives"]]
    return next((metric for metric in metrics if metric.startswith("select.")), "select.top1")


def natural(text: str) -> tuple[bool, float, str]:
    """Sort key: numbers by their value, before other texts."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return (False, value, "") if math.isfinite(value) else (True, 0.0, text)


# ------------------------------------------------------------------------------------------------------ rows


def settings_tried(sweep: Record, trials: Sequence[Record]) -> list[Tried]:
    """An ablation's rows in the paper's order; else the settings, best first by the first objective."""
    if sweep["ablation"]:
        return list(_ablation_rows(sweep, trials))
    metric, sign = sweep["objectives"][0]["metric"], -1 if sweep["objectives"][0]["mode"] == "max" else 1

    def place(tried: Tried) -> tuple[bool, bool, float]:
        mean, last = tried.mean(metric), tried.last(metric)
        value = last if mean is None else mean
        return mean is None, value is None, sign * (value or 0.0)

    tried = [Tried(group[0]["label"], group[0]["setting"], group) for group in _by_setting(trials)]
    return sorted(tried, key=place)


def _ablation_rows(sweep: Record, trials: Sequence[Record]) -> Iterator[Tried]:
    """A row for each setting of each of the paper's rows: several where a grid is laid over the ablation."""
    ablation = sweep["ablation"]
    varied = sweep["space"].keys() - {key for row in ablation["rows"] for key in row["setting"]}
    if baseline := ablation.get("baseline"):
        yield Tried(baseline["label"], {}, (), baseline["printed"])
    seen: dict[frozenset[tuple[str, str]], str] = {}
    for row in ablation["rows"]:
        fixed = dict(row["setting"])
        mine = [t for t in trials if {k: v for k, v in t["setting"].items() if k not in varied} == fixed]
        for group in _by_setting(mine) or [[]]:
            setting = group[0]["setting"] if group else fixed
            more = label_of({key: value for key, value in setting.items() if key in varied})
            label = f"{row['label']}, {more}" if more else row["label"]
            first = seen.setdefault(frozenset(setting.items()), label)
            yield Tried(label, setting, group, row["printed"], "" if first == label else first)


def _by_setting(trials: Sequence[Record]) -> list[list[Record]]:
    """Trials of one setting together, by seed; settings in natural order, whatever the order in which they ended."""
    groups: dict[frozenset[tuple[str, str]], list[Record]] = {}
    for trial in sorted(trials, key=lambda trial: trial["seed"]):
        groups.setdefault(frozenset(trial["setting"].items()), []).append(trial)
    return sorted(groups.values(), key=lambda group: [natural(value) for value in group[0]["setting"].values()])


def summary_of(sweep: Record, runs: Sequence[Record]) -> Scores | None:
    """Test scores over finished trials, or the winner's runs; None where nothing was scored on test lists."""
    records = [_scored(sweep, run) for run in runs if run.get("status", "finished") == "finished"]
    scored = [record for record in records if record is not None]
    return Scores(scored) if scored else None


def _scored(sweep: Record, run: Record) -> ScoredRun | None:
    """Return a run's scores on the test lists; None without any."""
    retrieval = sweep["protocol"] == "retrieval"
    sets = {
        name: SetMetrics.model_validate({"n_listed": 0, "n_scored": 0, **found})
        for name, found in run["metrics"].items()
        if name != "select" and isinstance(found, Mapping) and _whole(found, retrieval=retrieval)
    }
    if not sets or (sweep["protocol"] == "b2n" and not {"base", "novel"} <= sets.keys()):
        return None
    return ScoredRun(
        protocol=sweep["protocol"],
        dataset=sweep["dataset"],
        seed=run["seed"],
        shots=shots_of(sweep["protocol"], sweep["config"]["protocol"]["shots"]),
        classes=dict.fromkeys(sets, ()),
        metrics=sets,
    )


def _whole(found: Mapping[str, Any], *, retrieval: bool) -> bool:
    parts = [found.get(way) or {} for way in DIRECTIONS] if retrieval else [found]
    keys = RANKED if retrieval else ("top1", "top5")
    return all(math.isfinite(part.get(key, math.nan)) for part in parts for key in keys)
