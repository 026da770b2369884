"""What is stored of a clip: the settings that decide it, and the one function from a file to its frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from vlmodels.errors import UserError
from vlmodels.resize import WIDEST, Frames, resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import pool_indices, pool_offsets
from vlmodels.video import VideoInfo, read_clip

DECODE_VERSION = 1
"""Raised when the same file and settings would give other frames."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """A pool of frames: ``pool`` views and the centre of each of ``frames`` segments, for crops of ``size``."""

    frames: int = 8
    size: int = 224
    pool: int = 4

    def __post_init__(self) -> None:
        for name, least, most in (("frames", 1, 256), ("size", 16, 1024), ("pool", 1, 32)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"--{name} {value}: choose {least} to {most}")

    @property
    def offsets(self) -> tuple[float, ...]:
        """Places inside each segment."""
        return pool_offsets(self.pool)

    @property
    def stored_frames(self) -> int:
        """Frames stored of each clip."""
        return self.frames * len(self.offsets)

    @property
    def largest(self) -> int:
        """Bytes of the largest clip that these settings can give."""
        short = stored_short_side(self.size)
        return self.stored_frames * short * int(WIDEST * short) * 3

    def to_json(self) -> dict[str, Any]:
        """Return all that decides which frames are stored, as index.json keeps it."""
        return {
            "version": DECODE_VERSION,
            "segments": self.frames,
            "offsets": list(self.offsets),
            "size": self.size,
            "short_side": stored_short_side(self.size),
            "resize": "bilinear, antialiased, cover and centre crop",
        }

    @property
    def digest(self) -> str:
        """SHA-256 of ``to_json``."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def decode_clip(path: str, settings: DecodeSettings) -> tuple[Frames, VideoInfo]:
    """Return the stored frames ``[P, H, W, 3]`` of a video, and its facts.

    Raises:
        VideoError: see ``vlmodels.video.read_clip``.
    """
    short = stored_short_side(settings.size)

    def to_storage(frames: Frames) -> Frames:
        height, width = storage_shape(frames.shape[2], frames.shape[1], short)
        return resize_cover(frames, height, width)

    return read_clip(path, lambda n: pool_indices(n, settings.frames, settings.offsets), to_storage)
