"""What a trial, and the winner, is trained with."""

from __future__ import annotations

from dataclasses import replace

from pipelines.config.schema import ProtocolConfig, TrainConfig
from pipelines.sweeps.candidates import overridden, winner_config


def test_a_candidate_is_the_setting_on_top_of_the_base(planned):
    plan = planned("--space", "insertion")
    config = overridden(plan.base, plan.candidates[0].setting, seed=7)
    assert config.method_config == {**plan.base.method_config, "layers": "1-2"}
    assert replace(config, method_config=plan.base.method_config, seed=1) == plan.base


def test_the_winner_trains_on_all_clips_and_classes_and_is_tested():
    base = TrainConfig(protocol=ProtocolConfig(holdout=0.2, holdout_classes=0.25), test=False)
    config = winner_config(base, 3)
    assert (config.protocol.holdout, config.protocol.holdout_classes) == (0.0, 0.0)
    assert (config.test, config.seed) == (True, 3)


def test_clips_that_choose_the_epoch_stay_held_out():
    base = TrainConfig(protocol=ProtocolConfig(holdout=0.2, holdout_classes=0.25), selection="select", test=False)
    config = winner_config(base, 1)
    assert (config.protocol.holdout, config.protocol.holdout_classes) == (0.2, 0.0)
