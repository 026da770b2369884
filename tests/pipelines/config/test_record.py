"""Configurations in records: written without passwords."""

from __future__ import annotations

import dataclasses

from pipelines.config.plain import to_plain
from pipelines.config.record import redacted, shown
from pipelines.config.schema import DataConfig, TrainConfig

BASE = TrainConfig(data=DataConfig(dir="data"))


def test_passwords_are_not_recorded():
    uri = "postgresql://user:secret@host/db"
    config = dataclasses.replace(BASE, tracking=dataclasses.replace(BASE.tracking, uri=uri))
    assert shown(config) == to_plain(config) | {"tracking": to_plain(config.tracking) | {"uri": redacted(uri)}}
    assert redacted(uri) == "postgresql://user:***@host/db"
    assert redacted("sqlite:///runs/mlflow.db") == "sqlite:///runs/mlflow.db"
