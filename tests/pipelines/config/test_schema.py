"""Which settings are part of a run's digest."""

from __future__ import annotations

import dataclasses

from pipelines.config.resolve import resolve
from pipelines.config.schema import DataConfig, TrainConfig

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_digest_ignores_scale_place_and_tracking_only():
    assert BASE.digest() == dataclasses.replace(BASE, out="elsewhere").digest()
    assert BASE.digest() == dataclasses.replace(BASE, scale=dataclasses.replace(BASE.scale, workers=7)).digest()
    assert BASE.digest() == dataclasses.replace(BASE, data=DataConfig(dir="moved")).digest()
    for field in ("optim.lr=9", "seed=5", "augment.flip=0.1", "protocol.shots=3", "data.crops=3", "method.dims=8"):
        assert resolve(method="msta", preset=None, base=BASE, overrides=[field]).digest() != BASE.digest()
