"""A decision in words: on the page of a run, and on the card of its model."""

from __future__ import annotations

import pytest

from pipelines.reports.decision_text import lines
from pipelines.reports.model_card import model_card
from pipelines.reports.run_page import write_run_report
from tests.helpers.fakes import decision_json, leave_run, record_of


def test_page_and_card_show_threshold_rates_and_calibration(tmp_path):
    record = record_of(decision=decision_json())
    folder = leave_run(tmp_path, record)
    for text in (write_run_report(folder).read_text(), model_card(record)):
        for words in ("None of these", "0.4", "refuses at most 5 %", "temperature 1.7", "3 of 60, 2 to 14 %",
                      "30.0 %", "6 of 20, 14 to 52 %", "optimistic"):  # fmt: skip
            assert words in text.replace("\\", ""), words
    assert (folder / "report" / "reliability.png").stat().st_size > 5000
    assert "always chooses one of the names" not in model_card(record)


def test_without_a_decision_nothing_is_said(tmp_path):
    record = record_of()
    assert not list(lines(record))
    folder = leave_run(tmp_path, record)
    assert "None of these" not in write_run_report(folder).read_text() + model_card(record)
    assert not (folder / "report" / "reliability.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": None, "notes": ["there is no threshold: 3 clips <b>"]}, "There is no threshold: 3 clips <b>."),
        ({"miss_rate": 0.2}, "refuses at most 20 % of the right held-out clips"),
    ],
)
def test_how_it_was_chosen_or_why_not_is_said(changes, words):
    assert any(words in line for line in lines(record_of(decision=decision_json() | changes)))
