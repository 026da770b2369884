"""Configurations in records: written without passwords."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from pipelines.config.plain import to_plain
from pipelines.config.schema import TrainConfig


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
