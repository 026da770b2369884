"""Settings that decide which frames of a clip are stored, and the one function from a file to these frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from vlmodels.cuts import read_cuts
from vlmodels.errors import UserError, nearest
from vlmodels.resize import WIDEST, Frames, resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import Indices, Sampling, dense_pool_indices, pool_indices, pool_offsets, pool_starts
from vlmodels.span import Cuts
from vlmodels.video import Reader, VideoError, VideoInfo, read_clip

DECODE_VERSION = 1
"""To be raised when the same file and settings give other frames, and the manifest (``n_frames``) does not show it."""
DECODER = "pipelines.ingestion.decode:decode_clip"
"""``module:function`` that a decoding process imports."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """Which frames of a video are stored, and how large.

    Attributes:
        frames: T, frames of a view.
        size: pixels of the crops that the stored frames leave room for.
        pool: views that are stored, in addition to the centre one.
        sampling: whether a view is a frame of each segment, or "dense": frames that are ``stride`` apart.
        stride: frames between two of a dense view.
        reader: the reader of the files; it does not decide which frames are stored, so ``to_json`` leaves it out.

    Raises:
        UserError: a value is out of range.
    """

    frames: int = 8
    size: int = 224
    pool: int = 4
    sampling: Sampling = "segments"
    stride: int = 16
    reader: Reader = "auto"

    def __post_init__(self) -> None:
        for name, least, most in (("frames", 1, 256), ("size", 16, 1024), ("pool", 1, 32), ("stride", 1, 256)):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"--{name} {value}: choose {least} to {most}")
        known = get_args(Sampling)
        if self.sampling not in known:
            raise UserError(f"--sampling {self.sampling}: choose {' or '.join(known)}{nearest(self.sampling, known)}")

    @property
    def offsets(self) -> tuple[float, ...]:
        """Places inside each segment, or ``Starts`` of dense views: one for each stored frame of a segment."""
        return pool_starts(self.pool) if self.sampling == "dense" else pool_offsets(self.pool)

    def indices(self, n_frames: int) -> Indices:
        """Return the frame numbers ``[stored_frames]`` of a pool, segment by segment; dense ones do not ascend."""
        if self.sampling == "dense":
            return dense_pool_indices(n_frames, self.frames, self.stride, self.pool)
        return pool_indices(n_frames, self.frames, self.offsets)

    @property
    def stored_frames(self) -> int:
        """Number of stored frames of each clip."""
        return self.frames * len(self.offsets)

    @property
    def largest(self) -> int:
        """Bytes of the largest clip that these settings can give."""
        short = stored_short_side(self.size)
        return self.stored_frames * short * int(WIDEST * short) * 3

    def to_json(self) -> dict[str, Any]:
        """Return what index.json records: all that decides which frames are stored."""
        if self.sampling == "dense":
            sampling = {"sampling": self.sampling, "stride": self.stride, "starts": list(self.offsets)}
        else:
            sampling = {"offsets": list(self.offsets)}
        return {
            "version": DECODE_VERSION,
            "segments": self.frames,
            **sampling,
            "size": self.size,
            "short_side": stored_short_side(self.size),
            "resize": "bilinear, antialiased, cover and centre crop",
        }

    @property
    def digest(self) -> str:
        """SHA-256 of ``to_json``."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How the videos of one run are decoded.

    Attributes:
        settings: which frames are stored.
        workers: videos decoded at the same time; None for one on each CPU.
        time_limit_s: seconds for each video.
        decode: ``module:function`` of a function ``(path, settings) -> (frames, info)`` like ``decode_clip``.
    """

    settings: DecodeSettings
    workers: int | None = None
    time_limit_s: float = 60.0
    decode: str = DECODER


def decode_clip(path: str, settings: DecodeSettings) -> tuple[Frames, VideoInfo]:
    """Return the stored frames ``[P, H, W, 3]`` (uint8) of a video, and its facts.

    Raises:
        VideoError: the file cannot be read as a video (``vlmodels.video.read_clip``).
    """
    if settings.sampling == "segments":
        return read_clip(path, settings.indices, to_storage(settings), reader=settings.reader)
    frames, info = read_clip(path, _each_once(settings), to_storage(settings), reader=settings.reader)
    return _in_order(frames, info, settings)


def decode_cuts(path: str, settings: DecodeSettings, cuts: Cuts) -> list[tuple[Frames, VideoInfo] | VideoError]:
    """Return the stored frames and the facts of parts of a video, or why there is no such part; it is decoded once.

    Raises:
        VideoError: the file cannot be read as a video (``vlmodels.cuts.read_cuts``).
    """
    shrink = to_storage(settings)
    found = read_cuts(path, cuts.spans, _each_once(settings), shrink, reader=settings.reader, fps=cuts.fps)
    return [one if isinstance(one, VideoError) else _in_order(*one, settings) for one in found]


def to_storage(settings: DecodeSettings) -> Callable[[Frames], Frames]:
    """Return the resize of frames to the size in which they are stored."""
    short = stored_short_side(settings.size)

    def resized(frames: Frames) -> Frames:
        height, width = storage_shape(frames.shape[2], frames.shape[1], short)
        return resize_cover(frames, height, width)

    return resized


def _each_once(settings: DecodeSettings) -> Callable[[int], Indices]:
    return lambda n_frames: np.unique(settings.indices(n_frames))  # ascending, which dense ones are not


def _in_order(frames: Frames, info: VideoInfo, settings: DecodeSettings) -> tuple[Frames, VideoInfo]:
    wanted = settings.indices(info.n_frames)
    return frames[np.searchsorted(np.unique(wanted), wanted)], info
