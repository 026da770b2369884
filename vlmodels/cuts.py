"""Reads parts of a video as videos of their own: many of one file at once, which is opened and decoded once."""

# Shapes: P chosen frame, H W pixel row and column of the upright picture.

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vlmodels.readers import picture_folder, pyav_cuts, webp
from vlmodels.readers.clip import ChooseIndices, ClipJob, Frames, Header, Transform, VideoError, VideoInfo
from vlmodels.readers.header import read_header
from vlmodels.readers.times import SpanError, Times, decoded_times, read_times
from vlmodels.sampling import Indices
from vlmodels.span import Span
from vlmodels.video import BLOCK_BYTES, SPARSE, Reader, choose_readers, read_with


def read_cut(
    path: str | Path, span: Span, indices: ChooseIndices, transform: Transform | None = None, *, fps: float = 0.0
) -> tuple[Frames, VideoInfo]:
    """Return the frames ``[P, H, W, 3]`` at ``indices(number of frames in the span)`` of a part of a video, and facts.

    Raises:
        VideoError: see ``read_cuts``.
    """
    (found,) = read_cuts(path, [span], indices, transform, fps=fps)
    if isinstance(found, VideoError):
        raise found
    return found


def read_cuts(
    path: str | Path,
    spans: Sequence[Span | None],
    indices: ChooseIndices,
    transform: Transform | None = None,
    *,
    reader: Reader = "auto",
    threads: int = 1,
    sparse: int = SPARSE,
    fps: float = 0.0,
) -> list[tuple[Frames, VideoInfo] | VideoError]:
    """Return frames ``[P, H, W, 3]`` and facts of each span of a video, or why the video has no such span.

    The frames are those that are shown in the span, as if the file were cut to them: ``VideoInfo.n_frames`` counts
    them, and ``indices`` chooses among them.

    Args:
        path: video file, or a folder of numbered pictures.
        spans: the parts, perhaps overlapping; None for the whole video.
        indices: returns the wanted frame numbers of a number of frames, ascending, perhaps repeated.
        transform: for instance a resize (``vlmodels.video.read_clip``).
        reader: the one to use for files that it reads rightly.
        threads: threads of the decoder.
        sparse: least frames per wanted frame from which "auto" uses another reader than PyAV.
        fps: frames per second of a folder of pictures; 0: unknown.

    Raises:
        VideoError: the file cannot be read at all.
        UserError: the reader is not installed.
    """
    path = Path(path)
    shrink = transform or _unchanged
    if webp.is_webp(path):
        facts = webp.read(path, _first, _unchanged)[1]
        wanted = _Wanted(path, spans, indices, Times.by_rate(facts.n_frames, facts.fps))
        return wanted.cut(lambda: webp.read(path, wanted, shrink))
    if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error here
        count = len(picture_folder.list_pictures(path))
        wanted = _Wanted(path, spans, indices, Times.by_rate(count, fps))
        return wanted.cut(lambda: picture_folder.read(path, wanted, shrink, fps))
    header = read_header(path)
    times = read_times(path, header)
    wanted = _Wanted(path, spans, indices, times)
    job = ClipJob(path, header, wanted, shrink, threads, BLOCK_BYTES)
    # By the whole video: which reader it is must not depend on which parts are read together.
    choices = choose_readers(reader, header, lambda: len(set(indices(max(1, header.shown)).tolist())), sparse)
    try:
        return wanted.cut(lambda: read_with(job, choices, partial(pyav_cuts.read, times=times)))
    except _CountError:  # packets are not always frames
        return _recounted(job, spans, indices, header)


def _recounted(
    job: ClipJob, spans: Sequence[Span | None], indices: ChooseIndices, header: Header
) -> list[tuple[Frames, VideoInfo] | VideoError]:
    times, _ = decoded_times(job.path, header, job.threads)
    wanted = _Wanted(job.path, spans, indices, times)
    again = replace(job, indices=wanted, header=replace(header, shown=times.count))
    return wanted.cut(lambda: read_with(again, ()))


class _CountError(Exception):
    """A video has another number of frames than its packets say."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The numbers of a span's frames, and those of them that are wanted."""

    numbers: range
    wanted: Indices


class _Wanted:
    """The wanted frames of all spans of a video, as the ``indices`` of one read."""

    def __init__(self, path: Path, spans: Sequence[Span | None], indices: ChooseIndices, times: Times) -> None:
        self.count = times.count
        self.parts = [_part(path, span, indices, times) for span in spans]
        found = [part.wanted for part in self.parts if isinstance(part, _Part)]
        self.all: Indices = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def __call__(self, count: int) -> Indices:
        if count != self.count:
            raise _CountError
        return self.all

    def cut(self, read: Callable[[], tuple[Frames, VideoInfo]]) -> list[tuple[Frames, VideoInfo] | VideoError]:
        """Read the wanted frames, once, and return those of each span."""
        if not len(self.all):
            return [part for part in self.parts if isinstance(part, VideoError)]
        frames, info = read()
        return [part if isinstance(part, VideoError) else self._of(part, frames, info) for part in self.parts]

    def _of(self, part: _Part, frames: Frames, info: VideoInfo) -> tuple[Frames, VideoInfo]:
        rows = np.searchsorted(self.all, part.wanted)
        return frames[rows], replace(info, n_frames=len(part.numbers))


def _part(path: Path, span: Span | None, indices: ChooseIndices, times: Times) -> _Part | VideoError:
    try:
        numbers = range(times.count) if span is None else times.numbers(span)
    except SpanError as error:
        return VideoError(path, str(error))
    return _Part(numbers, numbers.start + indices(len(numbers)))


def _first(_: int) -> Indices:
    return np.zeros(1, np.int64)


def _unchanged(frames: Frames) -> Frames:
    return frames
