"""The page of a sweep: what it is, its winner, its table and pictures, and every trial, from the records on disk."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.config.protocols import PROTOCOLS
from pipelines.records.summary import title
from pipelines.reports.page import write_page
from pipelines.sweeps.candidates import label_of
from pipelines.sweeps.folder import SweepFolder
from pipelines.sweeps.report.columns import Column, score_columns, sweep_table, table_columns, text_of
from pipelines.sweeps.report.rows import NONE, Record, counts, name_of, number, settings_tried, summary_of
from vlmodels.errors import UserError

__all__ = ["sweep_table", "write_sweep_report"]

_TEMPLATE = Path(__file__).parent / "templates" / "sweep.html.j2"
_COSTS = ("cost.trainable", "cost.step_seconds", "cost.gmacs_video", "cost.peak_memory_mb")


def write_sweep_report(folder: Path) -> Path:
    """Write ``folder/report/`` from the records there, at any moment of the sweep; return the page.

    Raises:
        UserError: there is no sweep.
    """
    from pipelines.sweeps.report.pictures import sweep_pictures

    records = SweepFolder(folder)
    sweep, trials = records.sweep(), records.trials()
    if sweep is None:
        raise UserError(f"{folder} has no sweep.json: pass the folder of a sweep, OUT/sweeps/NAME")
    part, report = folder / ".report.tmp", folder / "report"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    rows = settings_tried(sweep, trials)
    columns = table_columns(sweep, rows)
    write_page(
        part / "report.html",
        _TEMPLATE,
        title=sweep["name"],
        width=90,
        about=list(_about(sweep, trials)),
        settings=_settings(sweep),
        winner=list(_winner(sweep, records.winner())),
        ablation=sweep["title"] if sweep["ablation"] else "",
        groups=[(name, len(list(group))) for name, group in itertools.groupby(columns, lambda column: column.group)],
        columns=columns,
        count=len(rows),
        pictures=sweep_pictures(sweep, rows, trials, part),
        trials=[column for column in _trials(sweep, trials) if any(column.texts)],
    )
    shutil.rmtree(report, ignore_errors=True)
    part.rename(report)
    return report / "report.html"


def _about(sweep: Record, trials: Sequence[Record]) -> Iterator[tuple[str, str]]:
    depths = ", ".join(f"{count} {tower}" for tower, count in sweep["depths"].items())
    yield "method", sweep["method"] + (f", preset {sweep['preset']}" if sweep["preset"] else "")
    yield "backbone", f"{sweep['backbone']} (layers: {depths})"
    yield "data", f"{PROTOCOLS[sweep['protocol']].title} on {title(sweep['dataset'])}"
    if ablation := sweep["ablation"]:
        yield "ablation", f"{ablation['name']}, {ablation['source']}"
    for key, domain in sweep["space"].items():
        yield "tried", f"{key}: {domain}"
    yield "search", f"{sweep['search']}, seed {sweep['search_seed']}; scheduler {sweep['scheduler']}"
    yield "seeds", f"{', '.join(map(str, sweep['seeds']))} of each setting"
    goals = ", ".join(f"{name_of(o['metric'], sweep)} ({o['mode']})" for o in sweep["objectives"])
    tested = (
        "every finished trial is scored on test too, for the table"
        if sweep["scored_on_test"]
        else "only the winner is tested"
    )
    yield "chosen by", f"{goals}: measured on held-out training clips, never on the test lists; {tested}"
    yield "trials", f"{len(trials)} of {sweep['samples']}" + (f": {counts(trials)}" if trials else "")
    yield "time", f"{sum(trial['seconds'] for trial in trials):,.0f} s in trials; started {sweep['started']}"
    yield "MLflow", f"{sweep['tracking'].get('uri') or 'not tracked'}, run {sweep['tracking'].get('run_id') or NONE}"
    for note in sweep["notes"]:
        yield "note", str(note)


def _settings(sweep: Record) -> list[str]:
    """What every trial starts from, a line for each, by the keys of ``--set``."""
    from pipelines.config.plain import flatten

    flat = sorted(flatten(sweep["config"]).items())
    return [f"{key.replace('method_config.', 'method.')}={'' if value is None else value}" for key, value in flat]


def _winner(sweep: Record, winner: Record | None) -> Iterator[tuple[str, str]]:
    if winner is None:
        return
    metric = winner["chosen_on"]
    yield "setting", label_of(winner["setting"])
    mean = f" (mean of {len(winner['trials'])} trials)" if len(winner["trials"]) > 1 else ""
    yield "chosen by", f"{name_of(metric, sweep)} {text_of(metric, winner['chosen_value'])}{mean}"
    seeds = ", ".join(str(run["seed"]) for run in winner["runs"])
    yield "trained again", f"with seeds {seeds}"
    scores = summary_of(sweep, winner["runs"])
    for column, head in score_columns([scores]):
        assert scores is not None
        yield f"test {head}", f"{scores.cells[column].text} ({scores.cells[column].counts})"
    for run in winner["runs"]:
        yield "run", run["run_dir"]
    yield "registered", winner["registered"] or NONE


def _trials(sweep: Record, trials: Sequence[Record]) -> Iterator[Column]:
    """Everything about each trial, in the order in which they ended."""
    for head, key in (("setting", "label"), ("seed", "seed"), ("status", "status"), ("message", "message")):
        kind = {"label": "key", "seed": "number", "message": "message"}.get(key, "text")
        yield Column(head, [str(trial[key]) for trial in trials], kind=kind)
    yield Column("epochs", [str(trial["epochs"]) for trial in trials])
    objectives = [objective["metric"] for objective in sweep["objectives"]]
    for metric in dict.fromkeys([*objectives, *_COSTS]):
        texts = [text_of(metric, number(trial, metric)) for trial in trials]
        if any(text != NONE for text in texts):
            yield Column(name_of(metric, sweep), texts)
    yield Column("seconds", [f"{trial['seconds']:,.0f}" for trial in trials])
    yield Column("MLflow run", [str(trial["tracking"].get("run_id") or NONE) for trial in trials], kind="key")
    yield Column("run", [trial["run"] or NONE for trial in trials], kind="key")
