"""The page of a sweep: what it is, its winner, its table and pictures, and every trial, from the records on disk."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.config.plain import flatten
from pipelines.config.protocols import PROTOCOLS
from pipelines.records.summary import title
from pipelines.reports.page import write_page
from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.records import SweepRecord, TrialRecord, WinnerRecord
from pipelines.sweeps.report.columns import TableColumn, score_columns, table_columns, text_of
from pipelines.sweeps.report.pictures import sweep_pictures
from pipelines.sweeps.report.rows import (
    NONE,
    count_statuses,
    finite_number,
    metric_name,
    runs_summary,
    setting_rows,
)
from vlmodels.errors import UserError

_TEMPLATE = Path(__file__).parent / "templates" / "sweep.html.j2"
_COSTS = ("cost.trainable", "cost.step_seconds", "cost.gmacs_video", "cost.peak_memory_mb")


def write_sweep_report(folder: Path) -> Path:
    """Write ``folder/report/`` from the records there, at any moment of the sweep; return the page.

    Raises:
        UserError: there is no sweep.
    """
    records = SweepFolder(folder)
    sweep, trials = records.sweep(), records.trials()
    if sweep is None:
        raise UserError(f"{folder} has no sweep.json: pass the folder of a sweep, OUT/sweeps/NAME")
    part, report = folder / ".report.tmp", folder / "report"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    rows = setting_rows(sweep, trials)
    columns = table_columns(sweep, rows)
    write_page(
        part / "report.html",
        _TEMPLATE,
        title=sweep.name,
        width=90,
        about=list(_about(sweep, trials)),
        settings=_settings(sweep),
        winner=list(_winner(sweep, records.winner())),
        ablation=sweep.title if sweep.ablation else "",
        groups=[(name, len(list(group))) for name, group in itertools.groupby(columns, lambda column: column.group)],
        columns=columns,
        count=len(rows),
        pictures=sweep_pictures(sweep, rows, trials, part),
        trials=[column for column in _trial_columns(sweep, trials) if any(column.texts)],
    )
    shutil.rmtree(report, ignore_errors=True)
    part.rename(report)
    return report / "report.html"


def _about(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> Iterator[tuple[str, str]]:
    depths = ", ".join(f"{count} {tower}" for tower, count in sweep.depths.items())
    yield "method", sweep.method + (f", preset {sweep.preset}" if sweep.preset else "")
    yield "backbone", f"{sweep.backbone} (layers: {depths})"
    yield "data", f"{PROTOCOLS[sweep.protocol].title} on {title(sweep.dataset)}"
    if sweep.ablation is not None:
        yield "ablation", f"{sweep.ablation.name}, {sweep.ablation.source}"
    for key, domain in sweep.space.items():
        yield "tried", f"{key}: {domain}"
    yield "search", f"{sweep.search}, seed {sweep.search_seed}; scheduler {sweep.scheduler}"
    yield "seeds", f"{', '.join(map(str, sweep.seeds))} of each setting"
    goals = ", ".join(f"{metric_name(goal.metric, sweep)} ({goal.mode})" for goal in sweep.objectives)
    tested = "every finished trial is scored on test too, for the table"
    if not sweep.scored_on_test:
        tested = "only the winner is tested"
    yield "chosen by", f"{goals}: measured on held-out training clips, never on the test lists; {tested}"
    yield "trials", f"{len(trials)} of {sweep.samples}" + (f": {count_statuses(trials)}" if trials else "")
    yield "time", f"{sum(trial.seconds for trial in trials):,.0f} s in trials; started {sweep.started}"
    yield "MLflow", f"{sweep.tracking.uri or 'not tracked'}, run {sweep.tracking.run_id or NONE}"
    for note in sweep.notes:
        yield "note", note


def _settings(sweep: SweepRecord) -> list[str]:
    """Return what every trial starts from, a line for each, by the keys of ``--set``."""
    flat = sorted(flatten(sweep.config).items())
    return [f"{key.replace('method_config.', 'method.')}={'' if value is None else value}" for key, value in flat]


def _winner(sweep: SweepRecord, winner: WinnerRecord | None) -> Iterator[tuple[str, str]]:
    if winner is None:
        return
    metric = winner.chosen_on
    yield "setting", label_of(winner.setting)
    mean = f" (mean of {len(winner.trials)} trials)" if len(winner.trials) > 1 else ""
    yield "chosen by", f"{metric_name(metric, sweep)} {text_of(metric, winner.chosen_value)}{mean}"
    seeds = ", ".join(str(run.seed) for run in winner.runs)
    yield "trained again", f"with seeds {seeds}"
    scores = runs_summary(sweep, winner.runs)
    for column, head in score_columns([scores]):
        assert scores is not None
        yield f"test {head}", f"{scores.cells[column].text} ({scores.cells[column].counts})"
    for run in winner.runs:
        yield "run", run.run_dir
    yield "registered", winner.registered or NONE


def _trial_columns(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> Iterator[TableColumn]:
    """Yield everything about each trial, in the order in which they ended."""
    yield TableColumn("setting", [trial.label for trial in trials], kind="key")
    yield TableColumn("seed", [str(trial.seed) for trial in trials])
    yield TableColumn("status", [trial.status for trial in trials], kind="text")
    yield TableColumn("message", [trial.message for trial in trials], kind="message")
    yield TableColumn("epochs", [str(trial.epochs) for trial in trials])
    objectives = [objective.metric for objective in sweep.objectives]
    for metric in dict.fromkeys([*objectives, *_COSTS]):
        texts = [text_of(metric, finite_number(trial, metric)) for trial in trials]
        if any(text != NONE for text in texts):
            yield TableColumn(metric_name(metric, sweep), texts)
    yield TableColumn("seconds", [f"{trial.seconds:,.0f}" for trial in trials])
    yield TableColumn("MLflow run", [trial.tracking.run_id or NONE for trial in trials], kind="key")
    yield TableColumn("run", [trial.run or NONE for trial in trials], kind="key")
