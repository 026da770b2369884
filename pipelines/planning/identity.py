"""Digests of the code and the weights, which name a run."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pipelines.cluster.node_facts import sources_digest


@functools.cache
def code_version() -> str:
    """Digest of the code that computes a run: this package's and ``vlmodels``' sources."""
    return sources_digest()


@functools.cache
def weights_digest(pretrained: str | None) -> str:
    """SHA-256 of a weight file; a tag is its own."""
    from vlmodels.toy import TOY_WEIGHTS

    path = TOY_WEIGHTS if pretrained == "toy" else Path(pretrained or "")
    if not path.is_file():
        return str(pretrained)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
