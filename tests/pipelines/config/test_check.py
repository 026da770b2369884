"""Values that break a rule: each is named, with the remedy."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.config.check import check
from pipelines.config.resolve import resolve
from pipelines.config.schema import DataConfig, TrainConfig

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_check_lists_every_bad_value():
    bad = dataclasses.replace(
        BASE,
        data=DataConfig(dir="", crops=2),
        optim=dataclasses.replace(BASE.optim, lr=0, batch_size=1),
        scale=dataclasses.replace(BASE.scale, workers=2),
        augment=dataclasses.replace(BASE.augment, flip=2.0),
        selection="select",
    )
    problems = check(bad)
    assert len(problems) == 6
    for word in ("--data", "data.crops=2", "optim.lr", "scale.workers=2", "augment.flip", "protocol.holdout"):
        assert any(word in problem for problem in problems), word
    assert check(BASE) == []


@pytest.mark.parametrize(
    "override",
    ["optim.beta2=1.5", "optim.weight_decay=-1", "optim.warmup_epochs=50", "optim.lr=inf", "optim.eps=0",
     "scale.cpus_per_worker=-1", "scale.regrow_s=-1", "seed=-1", "optim.warmup_epochs=-1", "optim.label_smoothing=1",
     "augment.mixup=-1", "augment.cutmix=inf", "augment.mixup=nan"],
)  # fmt: skip
def test_values_that_would_only_fail_in_a_worker_are_refused(override):
    (problem,) = check(resolve(method="msta", preset=None, base=BASE, overrides=[override]))
    assert override.partition("=")[0].split(".")[-1] in problem


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["protocol.holdout_classes=0.5"], "protocol.holdout_classes"),
        (["test=false"], "test=false"),
        (["selection=select"], "selection=select"),
        (["scale.min_workers=2"], "scale.min_workers=2"),
        (["scale.workers=2", "scale.gpus_per_worker=0.5"], "scale.gpus_per_worker=0.5"),
        (["data.parts=64"], "data.parts=64"),
        (["protocol.shots=0"], "protocol.shots=0"),
        (["protocol.miss_rate=1"], "protocol.miss_rate=1"),
        (["protocol.miss_rate=0"], "protocol.miss_rate=0"),
        (["data.clips=0"], "data.clips=0"),
    ],
)
def test_rules_of_one_group_and_of_several(overrides, word):
    (problem,) = check(resolve(method="msta", preset=None, base=BASE, overrides=overrides))
    assert word in problem


def test_retrieval_has_no_classes_to_probe():
    base = dataclasses.replace(BASE, protocol=dataclasses.replace(BASE.protocol, name="retrieval"))
    (problem,) = check(resolve(method="msta", preset=None, base=base, overrides=["data.probe=true"]))
    assert "data.probe" in problem
