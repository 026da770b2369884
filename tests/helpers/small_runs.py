"""Configurations of small runs on ``small_data``, with the toy backbone."""

from __future__ import annotations

import dataclasses

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig

SETTINGS = (
    "method.layers=3-4",
    "method.dims=8",
    "method.alpha=0",
    "method.dropout=0",
    "optim.epochs=20",
    "optim.warmup_epochs=1",
    "optim.batch_size=4",
    "protocol.shots=4",
)


def config_of(data, out, *overrides, workers=2, method="msta"):
    """Return a configuration of base-to-novel."""
    base = TrainConfig()
    base = dataclasses.replace(
        base,
        backbone=dataclasses.replace(base.backbone, pretrained="toy"),
        data=dataclasses.replace(base.data, dir=str(data)),
        scale=dataclasses.replace(base.scale, workers=workers),
        out=str(out),
    )
    settings = SETTINGS if method == "msta" else SETTINGS[4:]
    return resolve(method=method, preset=None, base=base, overrides=[*settings, *overrides])


def losses(result):
    """Return the loss of each epoch."""
    return [epoch.loss for epoch in result.record.history]
