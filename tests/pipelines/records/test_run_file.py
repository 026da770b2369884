"""``run.json``: written as it was read, and refused with the field that is wrong."""

from __future__ import annotations

import io
import json
import math

import pytest

from pipelines.records import run_file
from tests.helpers.fakes import record_json
from vlmodels.errors import UserError

MISSING = "missing"


def read(values, **kwargs):
    return run_file.read(io.BytesIO(json.dumps(values).encode()), "runs/a", **kwargs)


def test_unknown_keys_order_and_integers_are_written_as_they_were_read(tmp_path):
    values = {"later": {"b": [1, None]}, **record_json(seconds={"total": 12, "network_wait": 0, "new": 1.5})}
    values["metrics"]["hm"] = 60
    run_file.write(tmp_path, read(values))
    assert (tmp_path / "run.json").read_text() == json.dumps(values, indent=2) + "\n"
    assert run_file.read(tmp_path / "run.json") == read(values)


OLD = [
    {"start": None},
    {"unscored": None},
    {"unscored": MISSING},
    {"workers": []},
    {"workers": None},
    {"workers": MISSING},
    {"lists": None, "restarts": None, "epoch_kept": None, "tracking": None},
    {"lists": MISSING, "restarts": MISSING, "epoch_kept": MISSING, "tracking": MISSING},
    {"facts": {"trainable": 1, "git": None, "torch": None, "notes": None, "data_digest": None}},
    {"facts": {"trainable": 1}},
    {"history": [{"epoch": 1.0}, {"epoch": 2.0, "loss": None}, {}]},
    {"seconds": {"total": 1, "train": None}},
    {"scoring": {"frames": 8, "clips": 1, "crops": 1, "sampling": "segments", "stride": 0, "average": None}},
    {"start": {"name": None}},
    {"cost": {}},
]
"""Changes to a record of schema 2 that earlier versions read, and so do all later ones."""


@pytest.mark.parametrize("changes", OLD, ids=json.dumps)
def test_a_record_that_earlier_versions_read_is_read_and_written_as_it_was(tmp_path, changes):
    values = {key: value for key, value in (record_json() | changes).items() if value != MISSING}
    record = read(values)
    run_file.write(tmp_path, record)
    assert (tmp_path / "run.json").read_text() == json.dumps(values, indent=2) + "\n"
    assert (record.start.name, dict(record.workers), len(record.unscored)) == ("", {}, 2 * ("unscored" not in changes))


def test_settings_that_earlier_versions_did_not_look_at_may_be_null_or_missing():
    values = record_json()
    values["config"] |= {"tracking": None, "scale": None}
    values["config"]["protocol"] |= {"hmdb_names": None, "train_list": None}
    settings = read(values).config
    assert (settings.scale, settings.tracking.alias, settings.protocol.hmdb_names) == (None, "champion", "as_published")
    assert read(values).to_json() == values
    del values["config"]["tracking"]
    assert read(values).to_json() == values


def test_a_null_is_refused_where_a_value_is_needed():
    for key in ("name", "metrics", "history", "finished"):
        with pytest.raises(UserError, match=rf"^runs/a: .*{key}"):
            read(record_json() | {key: None})
    values = record_json()
    values["metrics"]["base"]["top1"] = None
    with pytest.raises(UserError, match=r"metrics\.base\.top1 is missing"):
        read(values)


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
