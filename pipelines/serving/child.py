"""What a decoding process imports: the two functions of ``frames``, and torch ahead, which their first resize needs."""

from __future__ import annotations

import torch  # noqa: F401 - seconds that the first request would wait

from pipelines.serving.frames import read_parts, read_whole

__all__ = ["read_parts", "read_whole"]
