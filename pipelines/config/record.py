"""Read a recorded configuration back, and write one without its passwords."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any
from urllib.parse import urlparse

from pipelines.config.plain import to_plain
from pipelines.config.schema import (
    TrainConfig,
)


def from_plain(plain: Mapping[str, Any]) -> TrainConfig:
    """Rebuild a configuration that :func:`to_plain` wrote."""
    return typing.cast("TrainConfig", _rebuild(TrainConfig, plain))


def _rebuild(cls: type, plain: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {k: _rebuild(hints[k], v) if is_dataclass(hints[k]) else v for k, v in plain.items()}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def shown(config: TrainConfig) -> dict[str, Any]:
    """The configuration as it is recorded: plain values, no password."""
    plain: dict[str, Any] = to_plain(config)
    if config.tracking.uri is not None:
        plain["tracking"]["uri"] = redacted(config.tracking.uri)
    return plain


def redacted(uri: str) -> str:
    """The URI without a password, for printing."""
    parsed = urlparse(uri)
    return uri.replace(f":{parsed.password}@", ":***@") if parsed.password else uri
