"""The reliability diagram is drawn for one set and for several, with bins that have no clips."""

from __future__ import annotations

import pytest

from pipelines.records.decision import RunDecision
from pipelines.reports.reliability_plot import reliability
from tests.helpers.fakes import decision_json


@pytest.mark.parametrize("names", [("select",), ("select", "base")])
def test_each_set_has_a_panel(tmp_path, names):
    sets = RunDecision.model_validate(decision_json()).sets
    from matplotlib import image

    drawn = image.imread(reliability({name: sets[name] for name in names}, tmp_path / "reliability"))
    assert drawn.shape[1] > 300 * len(names)
