"""Rows of a sweep's tables."""

from __future__ import annotations

from pipelines.sweeps.report.rows import setting_rows
from tests.helpers.sweep_records import ABLATION, sweep_of, trial_of


def test_a_grid_over_an_ablation_has_a_row_for_each_setting():
    trials = [
        trial_of({"method.layers": ranges, "optim.lr": rate}, float(rate) * 1000)
        for rate in ("0.01", "0.002")
        for ranges in ("4-4", "1-2")
    ]
    rows = setting_rows(sweep_of(ablation=ABLATION, space={"optim.lr": "0.01, 0.002"}), trials)
    assert [(row.label, row.mean("select.top1")) for row in rows] == [
        ("CLIP", None),
        ("1→6, lr=0.002", 2.0),
        ("1→6, lr=0.01", 10.0),
        ("7→12", None),
        ("8→12", None),
        ("10→12, lr=0.002", 2.0),
        ("10→12, lr=0.01", 10.0),
    ]
