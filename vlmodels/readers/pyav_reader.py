"""Reads clips with PyAV: decodes the whole stream, and keeps the wanted frames. All else is compared with this."""

# Shapes: H W pixel row and column of the upright picture.

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlmodels.readers.clip import ClipJob, Frames, Header, Transform, VideoError, VideoInfo, in_order
from vlmodels.readers.container import MAX_PIXELS, open_video, prepare
from vlmodels.readers.header import LEAST_DECODED


def read(job: ClipJob) -> tuple[Frames, VideoInfo]:
    """Decode the whole stream and keep the wanted frames, chosen for the expected number of frames.

    Packets are not always frames: if the number of frames differs, a second pass keeps the right ones.

    Raises:
        VideoError: none, or too few, of the frames can be decoded.
    """
    path, header = job.path, job.header
    expected = max(1, header.shown)
    while True:
        wanted = job.indices(expected)
        keeper = _Keeper(set(wanted.tolist()), job.transform, job.block_bytes)
        stopped = ""
        try:
            keeper.see_all(decode(path, header, job.threads), header.dropped)
        except av.FFmpegError as error:
            stopped = f" ({error.strerror})"
        if not keeper.seen:
            raise VideoError(path, why_none(header, stopped))
        if (stopped or header.promised) and keeper.seen < LEAST_DECODED * header.shown:
            raise VideoError(path, f"damaged: {keeper.seen} of {header.shown} frames can be decoded{stopped}")
        if keeper.seen == expected:
            keeper.flush()
            info = VideoInfo(keeper.width, keeper.height, header.fps, expected, "pyav")
            return in_order(keeper.done, wanted), info
        expected = keeper.seen


def decode(path: Path, header: Header, threads: int) -> Iterator[Any]:
    """Yield the frames of a file as PyAV has them, in order; a null packet has none.

    Raises:
        av.FFmpegError: the stream cannot be decoded further.
    """
    with open_video(path) as container:
        stream = container.streams[header.stream]
        prepare(stream, threads)
        for packet in container.demux(stream):
            if packet.size or packet.dts is None:  # one without data, but with a time, would end the decoder
                yield from packet.decode()


def why_none(header: Header, stopped: str = "") -> str:
    """Return why a file has no frames; FFmpeg forgets the size of pictures that it finds too large."""
    if header.frame_bytes:
        return f"none of its frames can be decoded{stopped}"
    return f"none of its frames can be decoded, or they have more than {MAX_PIXELS / 1e6:.0f} million pixels"


def upright(frame: Any, width: int, height: int) -> Frames:
    """Return ``[H, W, 3]`` RGB as displayed: PyAV, unlike decord, gives the rotation but does not apply it."""
    picture = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.rot90(picture, quarter_turns) if quarter_turns else picture


class _Keeper:
    """A counter of decoded frames that keeps the wanted ones, transformed block by block."""

    def __init__(self, wanted: set[int], transform: Transform, block_bytes: int) -> None:
        self.wanted, self.transform, self.block_bytes = wanted, transform, block_bytes
        self.seen = self.width = self.height = 0
        self.done: list[Frames] = []
        self._block: list[Frames] = []
        self._coded: tuple[int, int] | None = None

    def see_all(self, frames: Iterator[Any], dropped: dict[int, int]) -> None:
        """Count frames, each once and once more for each frame that was dropped after it."""
        for number, frame in enumerate(frames):
            self._see(frame, 1 + dropped.get(number, 0) + (dropped.get(-1, 0) if number == 0 else 0))

    def _see(self, frame: Any, times: int) -> None:
        if self._coded is None:
            self._coded = (frame.width, frame.height)  # a stream may change its size, a clip may not
        for number in range(self.seen, self.seen + times):
            if number in self.wanted:
                self._keep(upright(frame, *self._coded))
        self.seen += times

    def _keep(self, picture: Frames) -> None:
        self.height, self.width = picture.shape[:2]
        self._block.append(picture)
        if len(self._block) * picture.nbytes >= self.block_bytes:
            self.flush()

    def flush(self) -> None:
        if self._block:
            self.done.append(self.transform(np.stack(self._block)))
            self._block = []
