"""What a sweep prints, and the name that its winner gets."""

from __future__ import annotations

from dataclasses import replace

from pipelines.sweeps.text import describe_sweep, registered_name
from tests.helpers.sweep_plans import SMALL, request_of


def test_a_dry_run_shows_each_setting_and_why_one_cannot_be_trained(planned):
    plan = planned("--grid", "method.layers=1-2,3-9")
    text = describe_sweep(plan, every=True)
    good, bad = (next(line for line in text.splitlines() if f"layers={layers}" in line) for layers in ("1-2", "3-9"))
    assert "parameters, " in good
    assert "cannot be trained: " in bad
    assert "4 layers" in bad
    for words in (
        plan.name,
        "msta (preset b2n) on toy",
        "2 (grid), 1 seed each, 2 epochs",
        "only the winner is tested",
    ):
        assert words in text
    assert "layers=3-9" not in describe_sweep(plan)


def test_a_long_dry_run_is_cut(planned):
    text = describe_sweep(planned("--space", "layers-apart", "--method", "adaptformer", small=SMALL), every=True)
    assert "... and 60 more" in text


def test_the_name_in_the_registry(planned, clips):
    plan = planned("--space", "insertion")

    def name(*arguments):
        return registered_name(plan, request_of(clips, *arguments).register)

    assert name() == "msta-b2n-data"
    assert name("--register", "my model") == "my-model"
    random = replace(plan, base=replace(plan.base, backbone=replace(plan.base.backbone, pretrained=None)))
    assert registered_name(random, None) is None
    assert registered_name(random, "my model") is None
