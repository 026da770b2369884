"""Records of sweeps and trials, as plain JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from pipelines.sweeps.records import (
    SweepRecord,
    TrialRecord,
    WinnerRecord,
    WinnerRun,
    epoch_numbers,
    from_json,
    to_json,
)
from tests.helpers.sweep_records import ABLATION, layers_trial, sweep_of


def test_sweep_json_is_plain_and_has_what_was_asked(planned):
    plan = planned("--space", "insertion")
    content = json.loads(json.dumps(to_json(SweepRecord.of(plan, None))))
    assert content["name"] == plan.name
    assert content["scored_on_test"]
    assert content["ablation"]["rows"][0]["setting"] == {"method.layers": "1-2"}
    assert content["depths"] == {"video": 4, "text": 4}
    assert content["objectives"] == [{"metric": "select.top1", "mode": "max"}]


def test_a_later_session_keeps_the_start_and_the_mlflow_run(planned):
    plan = planned("--space", "insertion")
    first = SweepRecord.of(plan, None)
    earlier = replace(first, started="2026-01-01T00:00:00Z").tracked_as("run-id")
    again = SweepRecord.of(plan, earlier)
    assert again == earlier
    assert json.dumps(to_json(again)) == json.dumps(to_json(earlier))
    assert SweepRecord.of(plan, None).tracking.key != first.tracking.key


def test_a_sweep_that_an_earlier_version_began_gets_a_key(planned):
    plan = planned("--space", "insertion")
    content = to_json(SweepRecord.of(plan, None).tracked_as("run-id"))
    content["tracking"] = {"run_id": "run-id", "uri": None}
    earlier = from_json(SweepRecord, content)
    assert earlier.tracking.key == ""
    assert SweepRecord.of(plan, earlier).tracking.key
    assert SweepRecord.of(plan, earlier).tracking.run_id == "run-id"


KEYS = {
    TrialRecord: "schema id label setting seed status message run epochs seconds failures history metrics cost "
    "tracking",
    SweepRecord: "schema name method protocol dataset preset backbone depths title ablation space search scheduler "
    "samples seeds search_seed objectives scored_on_test config notes tracking started",
    WinnerRecord: "schema label setting trials chosen_on chosen_value runs registered",
}
WINNER = WinnerRecord(
    label="layers=3-4",
    setting={"method.layers": "3-4"},
    trials=("a", "b"),
    chosen_on="select.top1",
    chosen_value=63.14,
    runs=(WinnerRun("w1", "runs/w1", 1, {"base": {"top1": 50.0, "n_listed": 8}}, {"trainable": 4352}),),
    registered=None,
)


@pytest.mark.parametrize(
    "record",
    [
        layers_trial("3-4", scores=50.0),
        layers_trial("3-4", math.inf, history=({"epoch": 1, "loss": math.inf, "lr": 0.1},), cost={"trainable": 7}),
        sweep_of(),
        sweep_of(ablation=ABLATION),
        WINNER,
    ],
)
def test_records_are_read_as_they_were_written(record):
    text = json.dumps(to_json(record))
    again = from_json(type(record), json.loads(text))
    assert again == record
    assert json.dumps(to_json(again)) == text  # whole numbers stay whole
    assert list(to_json(record)) == KEYS[type(record)].split()


def test_a_record_names_the_field_that_is_wrong():
    content = to_json(layers_trial("3-4"))
    with pytest.raises(ValueError, match="seed"):
        from_json(TrialRecord, content | {"seed": "first"})


def test_numbers_are_those_of_metrics_and_cost():
    trial = layers_trial("3-4", 61.0, cost={"trainable": 7, "device": "cpu"})
    assert trial.numbers() == {"select.top1": 61.0, "select.top5": 90.0, "cost.trainable": 7.0}
    assert epoch_numbers({"epoch": 2.0, "select_top1": 5.0, "loss": 1.0}) == {
        "epoch": 2,
        "select.top1": 5.0,
        "loss": 1.0,
    }


@pytest.mark.parametrize(
    ("status", "failures", "ended"),
    [("finished", 0, True), ("pruned", 1, True), ("started", 0, False), ("failed", 1, False), ("failed", 2, True)],
)
def test_what_ended_for_good(status, failures, ended):
    assert layers_trial("3-4", status=status, failures=failures).ended is ended
