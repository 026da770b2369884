"""What a run's folder says about its predictions."""

from __future__ import annotations

import json

import pytest

from vlmodels.checkpoint import ADAPTER
from vlmodels.errors import UserError
from vlmodels.run_folder import Decision, run_decision, run_of


def add_run(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER).write_bytes(b"")
    return folder


def test_the_one_run_of_a_folder_is_found(tmp_path):
    with pytest.raises(UserError, match=f"there is no {ADAPTER} in"):
        run_of(tmp_path)
    below = add_run(tmp_path / "artifacts" / "run")
    assert run_of(tmp_path) == run_of(str(below)) == below
    add_run(tmp_path / "other")
    with pytest.raises(UserError, match="there are 2 models"):
        run_of(tmp_path)
    assert run_of(add_run(tmp_path)) == tmp_path, "its own comes first"


def decided(folder, decision):
    (folder / "run.json").write_text(json.dumps({"decision": decision}))
    return run_decision(folder)


def test_a_run_without_a_decision_has_one_without_effect(tmp_path):
    assert run_decision(tmp_path) == Decision(1.0, None)
    assert decided(tmp_path, None) == Decision(1.0, None)
    assert decided(tmp_path, {"temperature": 2, "threshold": None, "sets": {}}) == Decision(2.0, None)
    assert decided(tmp_path, {"temperature": 0.5, "threshold": 0.25}) == Decision(0.5, 0.25)


@pytest.mark.parametrize(
    "decision", [[1], {"temperature": 0}, {"temperature": "1"}, {"threshold": 1.5}, {"threshold": True}]
)
def test_a_damaged_decision_is_refused(tmp_path, decision):
    with pytest.raises(UserError, match="decision is damaged"):
        decided(tmp_path, decision)
