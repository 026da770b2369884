"""What every reader is given and gives back: a job, frames, facts, or the reason why a file cannot be read."""

# Shapes: P chosen frame, H W pixel row and column of the upright picture.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmodels.errors import UserError
from vlmodels.sampling import Indices

Frames = NDArray[np.uint8]
ChooseIndices = Callable[[int], Indices]
Transform = Callable[[Frames], Frames]


class VideoError(UserError):
    """A file that cannot be read as a video: its ``path`` and the ``cause``."""

    def __init__(self, path: str | Path, cause: str) -> None:
        super().__init__(f"{path}: {cause}")
        self.path, self.cause = str(path), cause

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return (VideoError, (self.path, self.cause))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Size as displayed (after rotation), frames per second (0.0: unknown), number of frames, and the decoder."""

    width: int
    height: int
    fps: float
    n_frames: int
    decoder: str


@dataclass(frozen=True, slots=True)
class Header:
    """The facts that the container states."""

    stream: int
    frame_bytes: int
    fps: float
    promised: int  # frames that the container states; 0 if it states none
    shown: int  # packets in the file that no edit list cuts away, and null packets: nearly always the number of frames
    dropped: dict[int, int]  # null packets after each packet, by its number (``NullCounter``)
    right_readers: frozenset[str]  # readers that seek, and that return the right frames of this file
    truncated: str = ""  # why the file is truncated, as a user reads it; nearly always ""


@dataclass(frozen=True, slots=True)
class ClipJob:
    """Which frames of a file are wanted, and what becomes of each block of them (``vlmodels.video.read_clip``)."""

    path: Path
    header: Header
    indices: ChooseIndices
    transform: Transform
    threads: int
    block_bytes: int

    @property
    def block_frames(self) -> int:
        """Number of frames in a block."""
        return max(1, self.block_bytes // max(1, self.header.frame_bytes))


class DisagreementError(Exception):
    """A reader counts other frames than the container has; another reader must be used."""


def read_seeking(
    job: ClipJob, counted: int, frames_at: Callable[[list[int]], Frames], decoder: str
) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts, by a reader that counts ``counted`` frames and seeks to numbers of them.

    Raises:
        DisagreementError: the reader counts other frames than the container has.
    """
    n_frames = job.header.shown
    if counted != n_frames:
        raise DisagreementError
    wanted = job.indices(n_frames)
    unique = np.unique(wanted).tolist()
    done = []
    height = width = 0
    for start in range(0, len(unique), job.block_frames):
        block = frames_at(unique[start : start + job.block_frames])
        height, width = block.shape[1:3]
        done.append(job.transform(block))
    return in_order(done, wanted), VideoInfo(width, height, job.header.fps, n_frames, decoder)


def in_order(done: list[Frames], wanted: Indices) -> Frames:
    """Join blocks of the distinct wanted frames, and repeat those that are wanted more than once."""
    frames = done[0] if len(done) == 1 else np.concatenate(done)
    _, place = np.unique(wanted, return_inverse=True)
    return frames if len(frames) == len(wanted) else frames[place]
