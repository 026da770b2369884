"""Read the frames of a video that a predictor looks at: decoding alone, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmodels.cuts import read_cut, read_cuts
from vlmodels.readers.clip import Frames, VideoError, VideoInfo
from vlmodels.resize import WIDEST, resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import Indices, Sampling, view_indices
from vlmodels.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vlmodels.span import Span


@dataclass(frozen=True, slots=True)
class ViewReader:
    """Which frames of a video are looked at, and how large; it travels to processes that have no model.

    Attributes:
        frames: T, frames of a view.
        size: pixels of the model's crops; frames are kept in the size that ingest stores for it.
        clips: number of temporal views.
        sampling: how the frames of a view are chosen: one of each "segments", or "dense".
        stride: distance of the frames of a dense view.
    """

    frames: int
    size: int
    clips: int = 1
    sampling: Sampling = "segments"
    stride: int = 16

    def indices(self, count: int) -> Indices:
        """Return the frame numbers (clips,T) of the views of a video of ``count`` frames."""
        return view_indices(count, self.frames, self.clips, self.sampling, self.stride)

    def shrink(self, frames: Frames) -> Frames:
        """Return frames (P,H,W,3) in the size that ingest stores."""
        height, width = frames.shape[1:3]
        return resize_cover(frames, *storage_shape(width, height, stored_short_side(self.size)))

    def read(self, video: str | Path, span: Span | None = None, fps: float = 0.0) -> tuple[Frames, VideoInfo]:
        """Return the uint8 frames (clips,T,H,W,3) of a video's views, and its facts.

        Raises:
            VideoError: the video cannot be read, or has no such part.
        """
        if span is None:
            kept, info = read_clip(video, self._each_once, self.shrink, fps=fps)
        else:
            kept, info = read_cut(video, span, self._each_once, self.shrink, fps=fps)
        return self._in_order(kept, info), info

    def read_parts(
        self, video: str | Path, spans: Sequence[Span | None], fps: float = 0.0
    ) -> list[tuple[Frames, VideoInfo] | VideoError]:
        """Return for each part of a video what ``read`` does, or its error; the video is decoded once.

        Raises:
            VideoError: the video cannot be read at all.
        """
        found = read_cuts(video, spans, self._each_once, self.shrink, fps=fps)
        return [one if isinstance(one, VideoError) else (self._in_order(*one), one[1]) for one in found]

    def choose(self, frames: Frames) -> Frames:
        """Return the views (clips,T,h,w,3) of all frames (P,H,W,3) of a video."""
        wanted = self.indices(len(frames))
        kept = self.shrink(frames[np.unique(wanted)])
        return kept[np.searchsorted(np.unique(wanted), wanted)]

    @property
    def most_bytes(self) -> int:
        """Bytes of the views of the widest video."""
        short = stored_short_side(self.size)
        return self.clips * self.frames * short * int(WIDEST * short) * 3

    def _each_once(self, count: int) -> Indices:
        return np.unique(self.indices(count))  # ascending, which dense ones are not

    def _in_order(self, kept: Frames, info: VideoInfo) -> Frames:
        wanted = self.indices(info.n_frames)
        return kept[np.searchsorted(np.unique(wanted), wanted)]
