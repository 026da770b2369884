"""What is stored of a clip: the settings that decide it, and the one function from a file to its frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from vlmodels.errors import UserError, nearest
from vlmodels.resize import WIDEST, Frames, resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import Indices, Sampling, dense_pool_indices, pool_indices, pool_offsets, pool_starts
from vlmodels.video import VideoInfo, read_clip

DECODE_VERSION = 1
"""Raised when the same file and settings would give other frames."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """A pool of frames for crops of ``size``: of each clip of ``frames`` frames, ``pool`` views and the centre one.

    ``sampling`` says what a clip is: a frame of each segment, or frames that are ``stride`` apart.
    """

    frames: int = 8
    size: int = 224
    pool: int = 4
    sampling: Sampling = "segments"
    stride: int = 16

    def __post_init__(self) -> None:
        for name, least, most in (("frames", 1, 256), ("size", 16, 1024), ("pool", 1, 32), ("stride", 1, 256)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"--{name} {value}: choose {least} to {most}")
        if self.sampling not in (known := get_args(Sampling)):
            raise UserError(f"--sampling {self.sampling}: choose {' or '.join(known)}{nearest(self.sampling, known)}")

    @property
    def offsets(self) -> tuple[float, ...]:
        """Places inside each segment, or ``Starts`` of dense clips: one for each frame that a segment stores."""
        return pool_starts(self.pool) if self.sampling == "dense" else pool_offsets(self.pool)

    def indices(self, n_frames: int) -> Indices:
        """Frame numbers ``[stored_frames]`` of a video's pool, segment by segment; ascending only for segments."""
        if self.sampling == "dense":
            return dense_pool_indices(n_frames, self.frames, self.stride, self.pool)
        return pool_indices(n_frames, self.frames, self.offsets)

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
        dense = {"sampling": self.sampling, "stride": self.stride, "starts": list(self.offsets)}
        return {
            "version": DECODE_VERSION,
            "segments": self.frames,
            **(dense if self.sampling == "dense" else {"offsets": list(self.offsets)}),
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

    if settings.sampling == "segments":
        return read_clip(path, settings.indices, to_storage)
    frames, info = read_clip(path, lambda n: np.unique(settings.indices(n)), to_storage)  # each once, ascending
    wanted = settings.indices(info.n_frames)
    return frames[np.searchsorted(np.unique(wanted), wanted)], info
