"""Configurations of small runs on ``small_data``, with the toy backbone."""

from __future__ import annotations

import dataclasses

import torch

from pipelines.config.resolve import resolve
from pipelines.config.schema import TrainConfig
from pipelines.ingestion.decode import DECODER, DecodeSettings
from pipelines.toyworld.world import write_video
from tests.helpers.ingesting import in_process

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


def make_data(root):
    """Ingest drawn videos, as ``small_data`` does, but without Ray; return the folder."""
    for number, name in enumerate(("driving car", "flying kite", "lifting box", "picking flower")):
        folder = root / "videos" / name
        folder.mkdir(parents=True)
        for clip in range(6):
            colour = torch.tensor([60 * number, 200 - 50 * number, 40 * clip])
            noise = torch.randint(50, (8, 64, 64, 3), generator=torch.Generator().manual_seed(10 * number + clip))
            write_video((noise + colour).clamp(0, 255).to(torch.uint8), folder / f"{clip}.mp4")
    with in_process() as runner:
        runner.ingest(root / "videos", root / "data", DecodeSettings(frames=4, size=48, pool=1), decode=DECODER)
    return root / "data"


def losses(result):
    """Return the loss of each epoch."""
    return [epoch.loss for epoch in result.record.history]
