"""Which settings are part of a run's digest."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.config.plain import digest_of, to_plain
from pipelines.config.resolve import resolve
from pipelines.config.schema import DataConfig, TrainConfig
from vlmodels.errors import UserError

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_digest_ignores_scale_place_and_tracking_only():
    assert BASE.digest() == dataclasses.replace(BASE, out="elsewhere").digest()
    assert BASE.digest() == dataclasses.replace(BASE, scale=dataclasses.replace(BASE.scale, workers=7)).digest()
    assert BASE.digest() == dataclasses.replace(BASE, data=DataConfig(dir="moved")).digest()
    fields = ("optim.lr=9", "seed=5", "augment.flip=0.1", "protocol.shots=3", "data.crops=3", "method.dims=8")
    for field in (*fields, "backbone.statistics=openai", "protocol.class_names=rephrased"):
        assert resolve(method="msta", preset=None, base=BASE, overrides=[field]).digest() != BASE.digest()


def test_defaults_of_later_settings_leave_the_digest_that_runs_had_without_them():
    plain = to_plain(BASE)
    for name in ("scale", "tracking", "out", "text", "start"):
        del plain[name]
    del plain["data"]["dir"], plain["backbone"]["pretrained"], plain["backbone"]["statistics"]
    for name in ("class_names", "lists", "labels", "base_labels", "novel_labels", "tests", "captions"):
        del plain["protocol"][name]
    assert plain["backbone"] == {"name": "toy"}
    assert BASE.digest() == digest_of(plain)


def test_statistics_that_there_are_not_are_refused():
    with pytest.raises(UserError, match=r"backbone.statistics.*own.*imagenet"):
        resolve(method="msta", preset=None, base=BASE, overrides=["backbone.statistics=image"])
