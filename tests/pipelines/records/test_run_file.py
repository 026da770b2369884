"""``run.json``: written as it was read, and refused with the field that is wrong."""

from __future__ import annotations

import io
import json
import math

import pytest

from pipelines.records import run_file
from tests.helpers.fakes import record_json
from vlmodels.errors import UserError


def read(values, **kwargs):
    return run_file.read(io.BytesIO(json.dumps(values).encode()), "runs/a", **kwargs)


def test_unknown_keys_order_and_integers_are_written_as_they_were_read(tmp_path):
    values = {"later": {"b": [1, None]}, **record_json(seconds={"total": 12, "network_wait": 0, "new": 1.5})}
    values["metrics"]["hm"] = 60
    run_file.write(tmp_path, read(values))
    assert (tmp_path / "run.json").read_text() == json.dumps(values, indent=2) + "\n"
    assert run_file.read(tmp_path / "run.json") == read(values)


def test_not_a_number_is_read_unless_finite_numbers_are_asked_for():
    values = record_json(cost={"step_seconds": math.nan})
    assert math.isnan(read(values).cost.step_seconds)
    with pytest.raises(UserError, match=r"runs/a: .* NaN"):
        read(values, finite=True)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"seed": True}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"protocol": "other"}, "protocol is 'other'"),
        ({"selection": "best"}, "selection is 'best'"),
        ({"metrics": {}}, r"metrics\.base is missing"),
        ({"classes": {"base": ["a"]}}, "base and novel"),
        ({"cost": {"step_seconds": "fast"}}, r"cost\.step_seconds"),
        ({"schema": 3}, "a newer version"),
    ],
)
def test_a_refusal_names_the_run_and_the_field(values, match):
    with pytest.raises(UserError, match=rf"^runs/a: .*{match}"):
        read(record_json() | values)
