"""``decision`` of a record: what is tracked of it, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.evaluation import decision as chosen
from pipelines.records.decision import HELD_OUT, RunDecision
from tests.helpers.fakes import decision_json, record_json
from vlmodels.run_folder import Decision, run_decision


def test_the_sets_are_called_alike_where_they_are_made_and_read():
    assert HELD_OUT == chosen.SELECT


def test_numbers_are_tracked_by_set():
    numbers = RunDecision.model_validate(decision_json()).numbers()
    assert numbers["decision/temperature"] == 1.7
    assert numbers["decision/threshold"] == 0.4
    assert numbers["decision/select/misses"] == pytest.approx(0.05)
    assert numbers["decision/novel/false_alarms"] == pytest.approx(0.3)
    assert numbers["decision/base/ece"] > numbers["decision/base/ece_scaled"]
    assert "decision/novel/ece" not in numbers
    assert "decision/threshold" not in RunDecision.model_validate({"temperature": 2}).numbers()


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": -1}, {"threshold": 1.5}, {"threshold": "high"}])
def test_a_decision_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RunDecision.model_validate(decision_json() | wrong)


def test_what_is_written_is_what_a_predictor_reads(tmp_path):
    import json

    (tmp_path / "run.json").write_text(json.dumps(record_json(decision=decision_json())))
    assert run_decision(tmp_path) == Decision(1.7, 0.4)
