"""Configurations in records: read back whole, written without passwords."""

from __future__ import annotations

import dataclasses
import json

from pipelines.config.plain import to_plain
from pipelines.config.record import from_plain, redacted, shown
from pipelines.config.resolve import resolve
from pipelines.config.schema import DataConfig, TrainConfig

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_plain_round_trip_keeps_everything():
    config = resolve(method="msta", preset="fewshot", base=BASE, overrides=["optim.precision=bf16", "seed=3"])
    assert from_plain(json.loads(json.dumps(to_plain(config)))) == config


def test_passwords_are_not_recorded():
    uri = "postgresql://user:secret@host/db"
    config = dataclasses.replace(BASE, tracking=dataclasses.replace(BASE.tracking, uri=uri))
    assert shown(config) == to_plain(config) | {"tracking": to_plain(config.tracking) | {"uri": redacted(uri)}}
    assert redacted(uri) == "postgresql://user:***@host/db"
    assert redacted("sqlite:///runs/mlflow.db") == "sqlite:///runs/mlflow.db"
