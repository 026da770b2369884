"""The page of a sweep from made-up records; no record breaks it."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from pipelines.sweeps.records import AblationRowRecord, WinnerRecord, WinnerRun
from pipelines.sweeps.report.columns import sweep_table, table_columns
from pipelines.sweeps.report.page import write_sweep_report
from pipelines.sweeps.report.rows import setting_rows
from tests.helpers.fakes import record_json
from tests.helpers.sweep_records import ABLATION, layers_trial, leave_sweep, objectives, sweep_of, trial_of
from vlmodels.errors import UserError


def written(folder, sweep, trials, winner=None):
    """The page's text."""
    leave_sweep(folder, sweep, trials, winner)
    page = write_sweep_report(folder)
    assert page == folder / "report" / "report.html"
    text = page.read_text()
    drawn = set(re.findall(r'<img src="([^"]+)"', text))
    assert drawn == {path.name for path in page.parent.iterdir()} - {"report.html"}
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    return text


def pictures(folder):
    return {path.stem for path in (folder / "report").glob("*.png")}


def test_the_best_of_each_column_is_marked_on_the_page_alone(tmp_path):
    trials = [
        layers_trial("1-2", 50.0, scores={"base": 60.0, "novel": 40.0}),
        layers_trial("3-4", 58.0, scores={"base": 70.0, "novel": 35.0}),
    ]
    sweep = sweep_of(ablation=ABLATION, space={})
    columns = table_columns(sweep, setting_rows(sweep, trials))
    best = {(column.head, column.printed): column.best for column in columns if column.best}
    assert best == {
        ("Base", False): {2, 3},  # two rows are one setting
        ("Novel", False): {1},
        ("HM", False): {1},
        ("held-out top-1", False): {2, 3},
        ("Base", True): {3},
        ("Novel", True): {3},
        ("HM", True): {3},
    }
    text = written(tmp_path, sweep, trials)
    assert "<b>70.0</b>" in text
    assert "<b>68.6</b>" in text
    assert "printed: MSTA table 6f, four data sets" in text
    assert text.index("1→6") < text.index("7→12") < text.index("8→12") < text.index("10→12")


@pytest.mark.parametrize(
    ("protocol", "scores", "heads"),
    [
        ("b2n", {"base": 60.0, "novel": 30.0}, {"Base": "60.0", "Novel": "30.0", "HM": "40.0"}),
        ("few_shot", 50.0, {"Top-1 K=16": "50.0", "Top-5 K=16": "70.0"}),
        ("supervised", 50.0, {"Top-1": "50.0", "Top-5": "70.0"}),
        (
            "zero_shot",
            {"hmdb51/val1": 40.0, "hmdb51/val2": 60.0, "ucf101/val1": 70.0},
            {"HMDB51": "50.0 ± 10.0", "UCF101": "70.0"},
        ),
        ("retrieval", 0.0, {"t2v R@1": "40.0", "v2t R@1": "40.0"}),
    ],
)
def test_every_protocol_has_its_columns(tmp_path, protocol, scores, heads):
    sets = dict.fromkeys(scores, ("a", "b")) if protocol == "zero_shot" else None
    metrics = record_json(protocol, scores=scores, sets=sets)["metrics"]
    trials = [layers_trial(text, metrics={"select": {"top1": 50.0}, **metrics}) for text in ("1-2", "3-4")]
    sweep = sweep_of(protocol)
    columns = table_columns(sweep, setting_rows(sweep, trials))
    assert {column.head: column.texts[0] for column in columns if column.group} == heads
    written(tmp_path, sweep, trials)


def test_a_sweep_without_trials_has_a_page(tmp_path):
    text = written(tmp_path, sweep_of(), [])
    assert "No trial has ended yet." in text
    assert "None yet." in text
    assert "0 of 10" in text
    text = written(tmp_path / "ablation", sweep_of(ablation=ABLATION, space={}), [])
    assert "not run" in text
    assert "67.4" in text
    with pytest.raises(UserError, match=r"no sweep\.json"):
        write_sweep_report(tmp_path / "ablation" / "report")


def test_a_newer_report_replaces_the_whole_older_one(tmp_path):
    trials = [layers_trial(text, scores=50.0) for text in ("1-2", "3-4")]
    written(tmp_path, sweep_of(), trials)
    assert "insertion_method_layers" in pictures(tmp_path)
    for path in (tmp_path / "trials").iterdir():
        path.unlink()
    written(tmp_path, sweep_of(), [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert pictures(tmp_path) == set()


def test_what_users_write_is_text_and_what_is_missing_breaks_nothing(tmp_path):
    evil = r"<b>$\frac{</b>"
    rows = tuple(AblationRowRecord(f"{evil}{n}", {"method.x": f"{evil}{n}"}, (1, 2, 3)) for n in (1, 2))
    ablation = replace(ABLATION, title=evil, source=evil, columns=(evil, "Novel", "HM"), rows=rows)
    trials = [trial_of({"method.x": f"{evil}{n}"}, scores=50.0, id=str(n), message=evil) for n in (1, 2)]
    assert "<b>$" not in written(
        tmp_path / "ablation", sweep_of(ablation=ablation, space={"a": evil}, notes=(evil,)), trials
    )

    odd = [
        *(trial_of({"method.x": f"{evil}{n}", "optim.lr": f"0.0{n}"}, 50.0 + n, id=str(n)) for n in (1, 2)),
        trial_of({"method.x": evil, "optim.lr": "nan"}, math.nan, id="3", scores=math.nan, message=f"{evil} " * 100),
        layers_trial("1-2", id="4", metrics={"select": {}}, cost={}, history=[{"epoch": 1.0, "loss": math.nan}]),
        layers_trial("1-3", id="5", status="failed", message="ActorDiedError"),
        layers_trial("1-99999999", id="6", status="invalid"),
        layers_trial("1-4", id="7", metrics={"select": {"top1": 60.0}, "base": {"top1": 50.0}}),
        layers_trial("2-4", id="8", metrics={"base": {"top1": 50.0, "top5": 90.0}}, cost={"trainable": 0}),
    ]
    goals = objectives(select__top1="max", cost__gmacs_video="min")
    text = written(tmp_path / "odd", sweep_of(objectives=goals), odd)
    assert "<b>$" not in text
    assert "coordinates" in pictures(tmp_path / "odd")
    long = next(part for part in text.split("<details ") if "title=" in part.partition(">")[0])
    assert long.partition("<summary>")[2].partition("</summary>")[0].endswith("…")
    assert sweep_table(sweep_of(objectives=goals), odd).count("\n") == len(odd) + 1


def test_the_winner_is_shown_with_its_test_scores(tmp_path):
    scores = {1: {"base": 60.0, "novel": 30.0}, 2: {"base": 70.0, "novel": 50.0}}
    winner = WinnerRecord(
        label="layers=3-4",
        setting={"method.layers": "3-4"},
        trials=("a", "b"),
        chosen_on="select.top1",
        chosen_value=63.14,
        runs=tuple(
            WinnerRun(f"w{seed}", f"runs/w{seed}", seed, record_json(scores=found)["metrics"])
            for seed, found in scores.items()
        ),
        registered="models:/toy@champion",
    )
    text = written(tmp_path, sweep_of(), [layers_trial("3-4", 63.14)], winner)
    shown = dict(re.findall(r"<tr><td>([^<]+)</td><td>([^<]*)</td></tr>", text.partition("<h2>Winner</h2>")[2]))
    assert shown["setting"] == "layers=3-4"
    assert shown["chosen by"] == "held-out top-1 63.1 (mean of 2 trials)"
    assert shown["test Base"] == "65.0 ± 5.0 (8 of 8)"
    assert shown["test HM"].startswith("49.5 ± 9.2")
    assert shown["registered"] == "models:/toy@champion"
