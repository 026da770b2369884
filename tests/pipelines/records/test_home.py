"""A finished run is reused only if its record is its own, and can be used."""

from __future__ import annotations

import json

import pytest

from pipelines.records.home import Home
from tests.helpers.fakes import record_json
from vlmodels.errors import UserError


@pytest.fixture
def keep(tmp_path):
    """Write a finished run by the name "a"."""

    def write(values):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "adapter.safetensors").write_bytes(b"")
        (tmp_path / "a" / "run.json").write_text(json.dumps(values))
        return Home.at(str(tmp_path))

    return write


def test_a_run_with_its_own_record_is_finished(keep):
    home = keep(record_json(name="a"))
    assert home.finished("a").name == "a"
    assert home.finished("b") is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (record_json(name="b"), r"a: its run\.json is of the run 'b'"),
        (record_json(name="evil/../x"), r"is of the run 'evil/\.\./x'"),
        (record_json(name="a\n"), r"its name 'a\\n' holds the character U\+000A"),
        (record_json(name=""), "is of the run ''"),
        (record_json(name="a", classes={}), "has no test set"),
        (record_json(name="a", seconds={"total": float("nan")}), "NaN"),
        ({}, r"damaged, or written by an older version \(run\.json has no schema, this version reads 2\)"),
        ({"schema": "2"}, r"damaged, or written by an older version \(run\.json has the schema '2'"),
        ({"schema": 1}, r"written by an older version"),
    ],
)
def test_a_record_that_is_not_the_runs_own_is_refused_with_a_way_on(keep, values, said):
    home = keep(values)
    with pytest.raises(UserError, match=f"{said}.*; repeat the run with --fresh") as caught:
        home.finished("a")
    assert "\n" not in str(caught.value)
    home.discard("a")
    assert home.finished("a") is None
