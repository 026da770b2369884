"""Means and deviations over seeds and lists, and the table that scripts print."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.records.summary import Column, Summary, columns_of, headings, summarise, table, title
from tests.helpers.fakes import record_of

percent = st.floats(0, 100)


@given(st.lists(st.tuples(percent, percent), min_size=1, max_size=4))
def test_hm_is_that_of_the_averaged_base_and_novel(pairs):
    records = [record_of(seed=i, scores={"base": b, "novel": n}) for i, (b, n) in enumerate(pairs)]
    (summary,) = summarise(records)
    base, novel, hm = (summary.cells[Column("toy-ucf", name)] for name in ("base", "novel", "HM"))
    b, n = np.mean(pairs, axis=0)
    assert (base.mean, novel.mean) == pytest.approx((b, n))
    assert hm.mean == pytest.approx(2 * b * n / (b + n) if b + n else 0)
    assert base.std == pytest.approx(np.std([p[0] for p in pairs], ddof=0), abs=1e-9)
    assert hm.values == pytest.approx([statistics.harmonic_mean(pair) for pair in pairs])


def test_lists_of_a_data_set_are_averaged_within_and_over_runs():
    scores = [{f"ucf101/val{i}": 60.0 + i + 10 * seed for i in (1, 2, 3)} for seed in (0, 1)]
    summary = Summary([record_of("zero_shot", dataset="ucf101", seed=s, scores=scores[s]) for s in (1, 0)])
    assert [record.seed for record in summary.records] == [0, 1]
    cell = summary.cells[Column("ucf101", "top1")]
    assert cell.mean == pytest.approx(67.0)
    assert sorted(cell.values) == [61, 62, 63, 71, 72, 73]
    assert (cell.lists, cell.listed, cell.chance) == (3, (24, 24), 50.0)


def test_columns_are_those_of_the_papers_tables():
    sets = {"ucf101/val1": ("a", "b"), "k600/ZS_split1_K600_eval": ("a", "b")}
    zero = Summary([record_of("zero_shot", sets=sets)])
    assert headings(columns_of([zero]), "zero_shot") == ["UCF101", "K600", "K600 top-5"]
    assert headings(columns_of([Summary([record_of()])]), "b2n") == ["base", "novel", "HM"]
    few = [Summary([record_of("few_shot", dataset=d, config={"protocol.shots": 4})]) for d in ("hmdb51", "mine")]
    assert headings(columns_of(few), "few_shot") == [
        f"{d} {m} K=4" for d in ("HMDB51", "mine") for m in ("top-1", "top-5")
    ]
    assert headings(columns_of([Summary([record_of("retrieval")])]), "retrieval") == [
        f"{way} {metric}" for way in ("t2v", "v2t") for metric in ("R@1", "R@5", "R@10", "MdR", "MnR")
    ]
    assert (title("k400"), title("msr-vtt"), title("my own")) == ("K400", "MSRVTT", "my own")


def test_chance_is_of_the_first_choice_alone():
    cells = Summary([record_of("retrieval")]).cells
    assert {c.metric: cell.chance for c, cell in cells.items() if cell.chance} == {"t2v R@1": 12.5, "v2t R@1": 12.5}
    few = {c.metric: cell.chance for c, cell in Summary([record_of("few_shot")]).cells.items()}
    assert few == {"top1 K=16": 50.0, "top5 K=16": None}
    b2n = {c.metric: cell.chance for c, cell in Summary([record_of()]).cells.items()}
    assert b2n == {"base": 50.0, "novel": 50.0, "HM": None}


def test_a_row_for_each_group_of_seeds_with_counts_where_videos_are_missing():
    records = [
        record_of(seed=1, scores=60.0),
        record_of(seed=2, scores=62.0, changes={"metrics.novel.n_scored": 7, "metrics.novel.n_quarantined": 1}),
        record_of(method="zeroshot", scores=50.0),
    ]
    lines = table(records, names={"b2n-msta-toy-ucf-1": "MSTA"}).splitlines()
    assert lines[0].split() == ["method", "base", "novel", "HM", "trainable", "seconds", "seeds", "scored"]
    assert lines[2].split("  ")[0] == "MSTA"
    assert "61.0 ± 1.0" in lines[2]
    assert "1,234" in lines[2]
    assert lines[2].endswith("novel 7/8")
    assert lines[3].split()[1:] == ["50.0", "50.0", "50.0", "0", "12", "1", "all"]


def test_a_table_of_one_seed_has_no_deviation_and_protocols_do_not_mix():
    first, second = table([record_of(), record_of("retrieval")]).split("\n\n")
    assert "±" not in first
    assert "seeds" not in first
    assert "scored" not in first
    assert "t2v R@1" in second
    assert "13.5" in second
