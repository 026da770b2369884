"""Rows in CSV and Parquet: hostile names, absent values, and the order of columns."""

from __future__ import annotations

import csv
import os

import pytest

from pipelines.prediction.rows import FAILED, NONE, Row, read_rows, write_csv, write_parquet

ROWS = [
    Row("a.mp4", topk=(("walk", 0.75), ("=run", 0.25)), seconds=0.5),
    Row("=cmd|'/c calc'!A0.mp4", 1.5, None, NONE, (("-sit", 0.5), ("walk", 0.5))),
    Row(os.fsdecode(b"\xff,\n.mp4"), status=FAILED, reason="+damaged"),
]


def test_csv_calculates_nothing_and_keeps_each_row(tmp_path):
    write_csv(tmp_path / "a.csv", ROWS, topk=2)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["video"] for row in found] == ["a.mp4", "./=cmd|'/c calc'!A0.mp4", "\\xff,\n.mp4"]
    assert [row["label"] for row in found] == ["walk", "none of these", ""]
    assert [row["label_2"] for row in found] == ["'=run", "walk", ""]
    assert [row["start"] for row in found] == ["", "1.5", ""]
    assert found[0]["probability"] == "0.750000"
    assert found[2]["reason"] == "'+damaged"


def test_parquet_gives_back_what_was_written(tmp_path):
    write_parquet(tmp_path / "a.parquet", ROWS, {"model": "m"})
    found = list(read_rows(tmp_path / "a.parquet"))
    assert found[:2] == ROWS[:2]
    assert found[2].video == "\\xff,\n.mp4"


@pytest.mark.parametrize("row", ROWS[:2])
def test_people_read_the_labels(row):
    lines = row.lines
    assert lines[0].startswith(row.video)
    assert ("none of these" in lines[1]) == (row.status == NONE)
    assert lines[-1].endswith(row.topk[-1][0])
