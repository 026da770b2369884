"""The report of a sweep from made-up records: its table, what is drawn of it, and that no record breaks the page."""

from __future__ import annotations

import json
import math
import random
import re

import numpy as np
import pytest
from fakes import record_json

from pipelines.reports import score_plots
from pipelines.sweeps.report.columns import pareto, sweep_table, table_columns
from pipelines.sweeps.report.page import write_sweep_report
from pipelines.sweeps.report.plots import insertion_matrix, numeric_scale, scales_of
from pipelines.sweeps.report.rows import settings_tried
from vlmodels.errors import UserError

ROWS = (
    ("1→6", "1-2", [67.4, 52.9, 59.3]),
    ("7→12", "3-4", [68.0, 53.1, 59.6]),
    ("8→12", "3-4", [68.6, 53.5, 60.1]),
    ("10→12", "4-4", []),
)
ABLATION = {
    "name": "insertion",
    "title": "Layers with adapters",
    "source": "MSTA table 6f",
    "data": "four data sets",
    "columns": ["Base", "Novel", "HM"],
    "baseline": {"label": "CLIP", "setting": {}, "printed": [60.0, 50.0, 54.5]},
    "rows": [{"label": label, "setting": {"method.layers": layers}, "printed": told} for label, layers, told in ROWS],
}


def sweep_of(protocol="b2n", **fields):
    config = record_json(protocol)["config"]
    return {
        "name": "sweep-msta-layers-1a2b",
        "method": "msta",
        "protocol": protocol,
        "dataset": "toy-ucf",
        "preset": "b2n",
        "backbone": "toy",
        "depths": {"video": 4, "text": 4},
        "title": "Where it is inserted",
        "ablation": None,
        "space": {"method.layers": "any range within 1-4"},
        "search": "grid",
        "scheduler": "none",
        "samples": 10,
        "seeds": [1],
        "search_seed": 1,
        "objectives": [{"metric": "select.top1", "mode": "max"}],
        "scored_on_test": True,
        "config": config,
        "notes": ["a note"],
        "tracking": {"uri": "sqlite:///m.db", "run_id": "parent"},
        "started": "2026-01-01T00:00:00Z",
        **fields,
    }


def trial_of(setting, top1=60.0, *, seed=1, status="finished", protocol="b2n", scores=None, **fields):
    """A trial; ``scores``: top-1 of its test sets, none where it is None."""
    sets = {} if scores is None else record_json(protocol, scores=scores)["metrics"]
    started, finished = status not in ("invalid", "failed"), status == "finished"
    epochs = (3 if finished else 1) * started
    return {
        "id": f"{'-'.join(setting.values())}-{seed}",
        "label": ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in setting.items()),
        "setting": setting,
        "seed": seed,
        "status": status,
        "message": "",
        "run": "b2n-msta-1" if started else "",
        "epochs": epochs,
        "seconds": 12.0,
        "history": [{"epoch": n + 1.0, "loss": 1.0, "select_top1": top1 - 2 + n} for n in range(epochs)],
        "metrics": {"select": {"top1": top1, "top5": 90.0}, **sets} if started else {},
        "cost": {"trainable": 4352, **({"step_seconds": 0.25} if finished else {})} if started else {},
        "tracking": {"run_id": "child" if started else None},
        **fields,
    }


def layers(text, *args, **kwargs):
    return trial_of({"method.layers": text}, *args, **kwargs)


def written(folder, sweep, trials, winner=None):
    """The page's text."""
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(sweep))
    for trial in trials:
        (folder / "trials" / f"{trial['id']}.json").write_text(json.dumps(trial))
    if winner is not None:
        (folder / "winner.json").write_text(json.dumps(winner))
    page = write_sweep_report(folder)
    assert page == folder / "report" / "report.html"
    text = page.read_text()
    drawn = set(re.findall(r'<img src="([^"]+)"', text))
    assert drawn == {path.name for path in page.parent.iterdir()} - {"report.html"}
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    return text


def pictures(folder):
    return {path.stem for path in (folder / "report").glob("*.png")}


# ------------------------------------------------------------------------------------------------------ tables


def test_an_ablation_has_the_papers_rows_and_numbers_beside_ours():
    trials = [
        layers("1-2", 50.0, scores={"base": 60.0, "novel": 30.0}),
        layers("3-4", 58.0, scores={"base": 70.0, "novel": 35.0}),
        layers("3-4", 62.0, seed=2, scores={"base": 80.0, "novel": 25.0}),
        layers("3-4", 1.0, seed=3, status="pruned"),
    ]
    assert sweep_table(sweep_of(ablation=ABLATION, space={}, seeds=[1, 2, 3]), trials).splitlines() == [
        "       setting                     Base       Novel          HM  printed Base  printed Novel  printed HM  "
        "held-out top-1  trainable  status",
        "-" * 153,
        "CLIP                                  -           -           -          60.0           50.0        54.5  "
        "             -          -  -",
        "1→6    layers=1-2                  60.0        30.0        40.0          67.4           52.9        59.3  "
        "          50.0      4,352  finished",
        "7→12   layers=3-4            75.0 ± 5.0  30.0 ± 5.0  42.9 ± 4.3          68.0           53.1        59.6  "
        "    60.0 ± 2.0      4,352  2 finished, 1 pruned",
        "8→12   layers=3-4 (as 7→12)  75.0 ± 5.0  30.0 ± 5.0  42.9 ± 4.3          68.6           53.5        60.1  "
        "    60.0 ± 2.0      4,352  2 finished, 1 pruned",
        "10→12  layers=4-4                     -           -           -             -              -           -  "
        "             -          -  not run",
        "printed: MSTA table 6f, four data sets",
    ]


def test_the_best_of_each_column_is_marked_on_the_page_alone(tmp_path):
    trials = [
        layers("1-2", 50.0, scores={"base": 60.0, "novel": 40.0}),
        layers("3-4", 58.0, scores={"base": 70.0, "novel": 35.0}),
    ]
    sweep = sweep_of(ablation=ABLATION, space={})
    columns = table_columns(sweep, settings_tried(sweep, trials))
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


def test_a_grid_over_an_ablation_has_a_row_for_each_setting():
    trials = [
        trial_of({"method.layers": ranges, "optim.lr": rate}, float(rate) * 1000)
        for rate in ("0.01", "0.002")
        for ranges in ("4-4", "1-2")
    ]
    rows = settings_tried(sweep_of(ablation=ABLATION, space={"optim.lr": "0.01, 0.002"}), trials)
    assert [(row.label, row.mean("select.top1")) for row in rows] == [
        ("CLIP", None),
        ("1→6, lr=0.002", 2.0),
        ("1→6, lr=0.01", 10.0),
        ("7→12", None),
        ("8→12", None),
        ("10→12, lr=0.002", 2.0),
        ("10→12, lr=0.01", 10.0),
    ]


def test_a_search_is_sorted_by_its_objective_and_tells_how_trials_ended():
    space = {"method.layers": "any", "optim.lr": "0.001 to 0.1 (log)"}
    trials = [
        trial_of({"method.layers": "1-2", "optim.lr": "0.01"}, 50.0),
        trial_of({"method.layers": "9-9", "optim.lr": "0.02"}, status="invalid", message="no layer 9"),
        trial_of({"method.layers": "1-4", "optim.lr": "0.03"}, 90.0, status="pruned"),
        trial_of({"method.layers": "2-4", "optim.lr": "0.04"}, 61.26),
        trial_of({"method.layers": "2-2", "optim.lr": "0.05"}, math.nan, status="diverged"),
    ]
    assert sweep_table(sweep_of(space=space), trials).splitlines() == [
        "#  layers  lr    held-out top-1  trainable  step (s)  status",
        "--------------------------------------------------------------",
        "1  2-4     0.04            61.3      4,352      0.25  finished",
        "2  1-2     0.01            50.0      4,352      0.25  finished",
        "3  1-4     0.03          (90.0)      4,352         -  pruned",
        "4  2-2     0.05               -      4,352         -  diverged",
        "5  9-9     0.02               -          -         -  invalid",
    ]
    assert sweep_table(sweep_of(), []) == "no trial has ended yet"
    many = [layers(f"1-{n}", float(n)) for n in range(1, 26)]
    lines = sweep_table(sweep_of(), many).splitlines()
    assert len(lines) == 23
    assert lines[2].split()[1] == "1-25"
    assert lines[-1] == "... and 5 more"


def test_of_two_objectives_the_table_marks_the_front():
    goals = [{"metric": "select.top1", "mode": "max"}, {"metric": "cost.trainable", "mode": "min"}]
    made = [("1-1", 50.0, 100), ("1-2", 60.0, 300), ("1-3", 55.0, 300), ("1-4", 40.0, 90)]
    trials = [layers(text, top1, cost={"trainable": size}) for text, top1, size in made]
    trials.append(layers("2-2", 99.0, status="pruned"))
    lines = sweep_table(sweep_of(objectives=goals), trials).splitlines()
    assert lines[0].split() == ["#", "layers", "front", "held-out", "top-1", "trainable", "status"]
    assert {line.split()[1] for line in lines if " yes " in line} == {"1-1", "1-2", "1-4"}


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
    trials = [layers(text, metrics={"select": {"top1": 50.0}, **metrics}) for text in ("1-2", "3-4")]
    sweep = sweep_of(protocol)
    columns = table_columns(sweep, settings_tried(sweep, trials))
    assert {column.head: column.texts[0] for column in columns if column.group} == heads
    written(tmp_path, sweep, trials)


# ---------------------------------------------------------------------------------------------- what is drawn


def test_the_front_is_what_no_other_point_dominates():
    points = [(1, 5), (2, 6), (2, 5), (3, 6), (3, 9), (1, 5), (4, 8)]
    assert pareto(points, ["min", "max"]) == [0, 1, 4, 5]
    assert pareto(points, ["max", "max"]) == [4, 6]
    assert pareto([], ["min", "max"]) == []


def test_cells_of_the_insertion_map_are_means_by_first_and_last_layer():
    scores = [("1-2", 10.0), ("1-2", 20.0), ("3-3", 7.0), ("2-3", None), ("all", 9.0), ("", 9.0), ("0-2", 9.0)]
    expected = np.full((3, 3), np.nan)
    expected[0, 1], expected[2, 2] = 15.0, 7.0
    np.testing.assert_array_equal(insertion_matrix([*scores, ("2-9", 9.0), ("3-1", 9.0)], 3), expected)


def test_axes_of_parallel_coordinates():
    first, last = scales_of("layers", ["1-4", "3-4", None, "2-8"])
    assert (first.name, last.name) == ("layers: first", "layers: last")
    np.testing.assert_allclose(first.places, [0.0, 1.0, np.nan, 0.5])
    np.testing.assert_allclose(last.places, [0.0, 0.0, np.nan, 1.0])
    [rate] = scales_of("lr", ["0.0001", "0.01", "0.001"])
    np.testing.assert_allclose(rate.places, [0.0, 1.0, 0.5])  # by the logarithm
    assert sorted(rate.ticks) == [(0.0, "0.0001"), (pytest.approx(0.5), "0.001"), (1.0, "0.01")]
    [shared] = scales_of("shared", ["true", "nan", "true"])
    assert [text for _, text in shared.ticks] == ["nan", "true"]
    np.testing.assert_allclose(shared.places, [1.0, 0.0, 1.0], atol=0.03)
    assert numeric_scale("same", [3.0, 3.0]).places == [0.0, 0.0]


def test_pictures_are_drawn_where_the_records_are_enough(tmp_path):
    rng = random.Random(0)
    trials = [layers(f"{a}-{b}", rng.uniform(40, 60), scores=50.0) for a in range(1, 5) for b in range(a, 5)]
    for n, trial in enumerate(trials):
        trial["cost"]["trainable"] = 1000 * (n + 1)
    written(tmp_path, sweep_of(), trials)
    assert pictures(tmp_path) == {"insertion_method_layers", "front", "curves"}

    apart = [
        trial_of({"method.layers": a, "method.text_layers": b, "optim.lr": str(rng.uniform(1e-4, 1e-2))}, status=status)
        for a in ("1-2", "3-4")
        for b in ("1-4", "2-2")
        for status in ("finished", "pruned", "diverged")
    ]
    for n, trial in enumerate(apart):
        trial["id"] = str(n)
    written(tmp_path / "apart", sweep_of(scored_on_test=False), apart)
    assert pictures(tmp_path / "apart") == {
        "insertion_method_layers",
        "insertion_method_text_layers",
        "coordinates",
        "curves",
    }
    written(tmp_path / "ablation", sweep_of(ablation=ABLATION, space={}), trials)
    assert "ablation" in pictures(tmp_path / "ablation")


def test_published_diamonds_stand_at_columns_of_the_same_name(tmp_path, monkeypatch):
    seen, draw = [], score_plots.accuracy_bars

    def spy(*args, printed, **kwargs):
        seen.append({(n, column.metric): value for (n, column), value in printed.items()})
        return draw(*args, printed=printed, **kwargs)

    monkeypatch.setattr(score_plots, "accuracy_bars", spy)
    trials = [layers("3-4", scores=50.0)]
    written(tmp_path / "a", sweep_of(ablation=ABLATION, space={}), trials)
    trials = [layers("3-4", scores=50.0, protocol="supervised")]
    told = {"columns": ["K400-tiny", "toy-ucf", "Top-5"]}
    written(tmp_path / "b", sweep_of("supervised", ablation=ABLATION | told, space={}), trials)
    assert seen == [
        {
            (n, metric): value
            for n in (0, 1)
            for metric, value in zip(("base", "novel", "HM"), ROWS[n + 1][2], strict=True)
        },
        {(0, "top1"): 53.1, (1, "top1"): 53.5, (0, "top5"): 59.6, (1, "top5"): 60.1},
    ]


# ------------------------------------------------------------------------------------------------------ the page


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
    trials = [layers(text, scores=50.0) for text in ("1-2", "3-4")]
    written(tmp_path, sweep_of(), trials)
    assert "insertion_method_layers" in pictures(tmp_path)
    for path in (tmp_path / "trials").iterdir():
        path.unlink()
    written(tmp_path, sweep_of(), [])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert pictures(tmp_path) == set()


def test_what_users_write_is_text_and_what_is_missing_breaks_nothing(tmp_path):
    evil = r"<b>$\frac{</b>"
    ablation = ABLATION | {"title": evil, "source": evil, "columns": [evil, "Novel", "HM"]}
    ablation["rows"] = [
        {"label": f"{evil}{n}", "setting": {"method.x": f"{evil}{n}"}, "printed": [1, 2, 3]} for n in (1, 2)
    ]
    trials = [trial_of({"method.x": f"{evil}{n}"}, scores=50.0, id=str(n), message=evil) for n in (1, 2)]
    assert "<b>$" not in written(
        tmp_path / "ablation", sweep_of(ablation=ablation, space={"a": evil}, notes=[evil]), trials
    )

    odd = [
        *(trial_of({"method.x": f"{evil}{n}", "optim.lr": f"0.0{n}"}, 50.0 + n, id=str(n)) for n in (1, 2)),
        trial_of({"method.x": evil, "optim.lr": "nan"}, math.nan, id="3", scores=math.nan, message=f"{evil} " * 100),
        layers("1-2", id="4", metrics={"select": {}}, cost={}, history=[{"epoch": 1.0, "loss": math.nan}]),
        layers("1-3", id="5", status="failed", message="ActorDiedError"),
        layers("1-99999999", id="6", status="invalid"),
        layers("1-4", id="7", metrics={"select": {"top1": 60.0}, "base": {"top1": 50.0}}),
        layers("2-4", id="8", metrics={"base": {"top1": 50.0, "top5": 90.0}}, cost={"trainable": 0}),
    ]
    goals = [{"metric": "select.top1", "mode": "max"}, {"metric": "cost.gmacs_video", "mode": "min"}]
    text = written(tmp_path / "odd", sweep_of(objectives=goals), odd)
    assert "<b>$" not in text
    assert "coordinates" in pictures(tmp_path / "odd")
    long = next(part for part in text.split("<details ") if "title=" in part.partition(">")[0])
    assert long.partition("<summary>")[2].partition("</summary>")[0].endswith("…")
    assert sweep_table(sweep_of(objectives=goals), odd).count("\n") == len(odd) + 1


def test_the_winner_is_told_with_its_test_scores(tmp_path):
    runs = [
        {"name": f"w{n}", "run_dir": f"runs/w{n}", "seed": n, "metrics": record_json(scores=scores)["metrics"]}
        for n, scores in ((1, {"base": 60.0, "novel": 30.0}), (2, {"base": 70.0, "novel": 50.0}))
    ]
    winner = {
        "label": "layers=3-4",
        "setting": {"method.layers": "3-4"},
        "trials": ["a", "b"],
        "chosen_on": "select.top1",
        "chosen_value": 63.14,
        "runs": runs,
        "registered": "models:/toy@champion",
    }
    text = written(tmp_path, sweep_of(), [layers("3-4", 63.14)], winner)
    told = dict(re.findall(r"<tr><td>([^<]+)</td><td>([^<]*)</td></tr>", text.partition("<h2>Winner</h2>")[2]))
    assert told["setting"] == "layers=3-4"
    assert told["chosen by"] == "held-out top-1 63.1 (mean of 2 trials)"
    assert told["test Base"] == "65.0 ± 5.0 (8 of 8)"
    assert told["test HM"].startswith("49.5 ± 9.2")
    assert told["registered"] == "models:/toy@champion"
