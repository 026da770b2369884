"""No cell is a formula, in none of the tables that are written."""

from __future__ import annotations

import csv

import pytest

from pipelines.prediction.cells import path_cell, text_cell
from pipelines.prediction.search import Hit, Ranking
from pipelines.prediction.search_page import Query
from pipelines.prediction.search_text import csv_lines
from pipelines.prediction.segments import Segment
from pipelines.prediction.timeline import Asked, Timeline, write_csv


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_what_begins_like_a_formula_is_text(start):
    assert text_cell(f"{start}1") == f"'{start}1"
    assert path_cell(f"{start}1") == f"./{start}1"
    assert (text_cell("a=1"), path_cell("/a=1"), text_cell("")) == ("a=1", "/a=1", "")


def test_a_search_calculates_nothing():
    hit = Hit("=calc.mp4", None, None, 0.5, 0)
    (row,) = csv.DictReader(csv_lines([Query("@sum(a)")], Ranking(((hit,),), 1, 0, 0, {})))
    assert (row["query"], row["video"], row["score"]) == ("'@sum(a)", "./=calc.mp4", "0.500000")


def test_a_timeline_calculates_nothing(tmp_path):
    segments = (Segment(0, 1, "-sit", 0.5), Segment(1, 2, "walk", 0.5))
    write_csv(tmp_path / "a.csv", Timeline("a.mp4", Asked(1, 1), 0, 2, 2, (), segments))
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["'-sit", "walk"]
