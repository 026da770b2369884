"""Configurations in records: written without passwords, and read back."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any
from urllib.parse import urlparse

from pipelines.config.plain import to_plain
from pipelines.config.schema import TrainConfig


def from_plain(plain: Mapping[str, Any]) -> TrainConfig:
    """Rebuild a configuration that :func:`to_plain` wrote."""
    return typing.cast("TrainConfig", _rebuild(TrainConfig, plain))


def shown(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as it is recorded: plain values, no password."""
    plain: dict[str, Any] = to_plain(config)
    if config.tracking.uri is not None:
        plain["tracking"]["uri"] = redacted(config.tracking.uri)
    return plain


def redacted(uri: str) -> str:
    """Return the URI without its password."""
    parsed = urlparse(uri)
    return uri.replace(f":{parsed.password}@", ":***@") if parsed.password else uri


def _rebuild(cls: type, plain: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in plain.items():
        if is_dataclass(hints[name]):
            values[name] = _rebuild(typing.cast("type", hints[name]), value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    return cls(**values)
