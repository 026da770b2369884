"""Names of trials and their folders."""

from __future__ import annotations

from types import SimpleNamespace

from tune_spaces.trials import trial_folder_name


def test_folder_names_are_safe_and_short():
    trial = SimpleNamespace(trial_id="1a2b", config={"setting": {"method.layers": "8-12", "a.b": "x/../é y"}})
    assert trial_folder_name(trial) == "layers=8-12,b=x_..___y-1a2b"
    trial.config = {"setting": {"method.prompt": "p" * 500}}
    assert len(trial_folder_name(trial)) < 120
