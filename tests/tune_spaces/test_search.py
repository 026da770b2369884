"""Objectives, and the values of a search that fit together."""

from __future__ import annotations

import pytest

from tune_spaces.search import Objective, Search
from vlmodels.errors import UserError

TOP1 = Objective(metric="select.top1")
COST = Objective(metric="cost.trainable", mode="min")


@pytest.mark.parametrize(
    ("text", "metric", "mode"),
    [
        ("select.top1", "select.top1", "max"),
        ("cost.trainable:min", "cost.trainable", "min"),
        ("cost.trainable", "cost.trainable", "min"),
        (" loss:min ", "loss", "min"),
        ("cost.x:max", "cost.x", "max"),
    ],
)
def test_an_objective_is_parsed(text, metric, mode):
    assert Objective.parse(text) == Objective(metric=metric, mode=mode)


@pytest.mark.parametrize("text", ["", ":min", "select.top1:best"])
def test_an_objective_of_another_form_is_refused(text):
    with pytest.raises(UserError, match="METRIC:min"):
        Objective.parse(text)


def test_one_message_names_all_problems_of_a_search():
    with pytest.raises(UserError) as error:
        Search(kind="tpe", scheduler="asha", objectives=(TOP1, COST), epochs=2, grace=2, reduction=1)
    for part in ("--samples 20", "by one objective", "--grace 2", "2 epochs", "2 or more at each rung"):
        assert part in str(error.value)
    for wrong in (
        {"objectives": ()},
        {"objectives": (TOP1, TOP1)},
        {"samples": 3},
        {"scheduler": "median", "objectives": (COST,)},
        {"kind": "random"},
    ):
        with pytest.raises(UserError):
            Search(**{"objectives": (TOP1,), "epochs": 3} | wrong)
