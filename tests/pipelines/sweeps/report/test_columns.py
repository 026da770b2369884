"""The table of a sweep in plain text, and its columns."""

from __future__ import annotations

import math

from pipelines.sweeps.report.columns import pareto, sweep_table
from tests.helpers.sweep_records import ABLATION, layers_trial, objectives, sweep_of, trial_of


def test_an_ablation_has_the_papers_rows_and_numbers_next_to_ours():
    trials = [
        layers_trial("1-2", 50.0, scores={"base": 60.0, "novel": 30.0}),
        layers_trial("3-4", 58.0, scores={"base": 70.0, "novel": 35.0}),
        layers_trial("3-4", 62.0, seed=2, scores={"base": 80.0, "novel": 25.0}),
        layers_trial("3-4", 1.0, seed=3, status="pruned"),
    ]
    assert sweep_table(sweep_of(ablation=ABLATION, space={}, seeds=(1, 2, 3)), trials).splitlines() == [
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


def test_a_search_is_sorted_by_its_objective_and_shows_how_trials_ended():
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
    many = [layers_trial(f"1-{n}", float(n)) for n in range(1, 26)]
    lines = sweep_table(sweep_of(), many).splitlines()
    assert len(lines) == 23
    assert lines[2].split()[1] == "1-25"
    assert lines[-1] == "... and 5 more"


def test_of_two_objectives_the_table_marks_the_front():
    goals = objectives(select__top1="max", cost__trainable="min")
    made = [("1-1", 50.0, 100), ("1-2", 60.0, 300), ("1-3", 55.0, 300), ("1-4", 40.0, 90)]
    trials = [layers_trial(text, top1, cost={"trainable": size}) for text, top1, size in made]
    trials.append(layers_trial("2-2", 99.0, status="pruned"))
    lines = sweep_table(sweep_of(objectives=goals), trials).splitlines()
    assert lines[0].split() == ["#", "layers", "front", "held-out", "top-1", "trainable", "status"]
    assert {line.split()[1] for line in lines if " yes " in line} == {"1-1", "1-2", "1-4"}


def test_the_front_is_what_no_other_point_dominates():
    points = [(1, 5), (2, 6), (2, 5), (3, 6), (3, 9), (1, 5), (4, 8)]
    assert pareto(points, ["min", "max"]) == [0, 1, 4, 5]
    assert pareto(points, ["max", "max"]) == [4, 6]
    assert pareto([], ["min", "max"]) == []
