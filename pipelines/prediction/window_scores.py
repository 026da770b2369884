"""Windows of long videos as rows and features: each video is read once, in this process, and done when all of it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipelines.prediction.decode import Look, state_of
from pipelines.prediction.fetch import video_files
from pipelines.prediction.model import choose_device
from pipelines.prediction.rows import FAILED
from pipelines.prediction.scoring import Scored, score_looks
from pipelines.prediction.videos import ListedVideo
from pipelines.prediction.work import Run, Say, Work
from pipelines.shards.prefetch import prefetched
from pipelines.storage.place import is_uri
from vlmodels.errors import UserError
from vlmodels.predictor import Predictor
from vlmodels.video import VideoError

_AT_ONCE = 64
"""Frames that are scored at once."""


def windows_run(window: float, stride: float) -> Run:
    """Return how the windows of videos are scored, one video after the other.

    Args:
        window: seconds of a window.
        stride: seconds from the start of a window to that of the next.
    """

    def run(work: Work, _: Say) -> Iterator[list[Scored]]:
        predictor = work.files.load(choose_device(work.request.device))
        for index in work.pending:
            video = work.listing[index]
            with video_files([video.video], Path(work.decode.folder), work.decode.time_limit_s) as paths:
                path = paths[0]
                if problem := paths.problems.get(0, ""):
                    yield [Scored(Look(index, reason=problem), FAILED)]
                else:
                    yield list(_scored(predictor, video, path, work, (window, stride)))

    return run


def _scored(
    predictor: Predictor, video: ListedVideo, path: str, work: Work, seconds: tuple[float, float]
) -> Iterator[Scored]:
    """Yield the windows of a video, and if it is damaged, a failed row for the rest."""
    size, mtime_ns = (None, None) if is_uri(video.video) else state_of(path)
    began, end = time.monotonic(), None
    waiting: list[Look] = []
    try:
        reader = predictor.read_windows(path, *seconds, video.fps, span=video.span)
        with closing(prefetched(reader)) as windows:  # type: ignore[type-var]  # a generator
            for span, frames in windows:
                now = time.monotonic()
                waiting.append(Look(video.index, span.start, span.end, frames, "", now - began, size, mtime_ns))
                began, end = now, span.end
                if len(waiting) * frames.shape[0] * frames.shape[1] * predictor.crops >= _AT_ONCE:
                    yield from score_looks(predictor, waiting, work.score)
                    waiting = []
                    began = time.monotonic()
        yield from score_looks(predictor, waiting, work.score)
    except UserError as error:
        yield from score_looks(predictor, waiting, work.score)
        reason = error.cause if isinstance(error, VideoError) else str(error)
        yield Scored(Look(video.index, end, None, None, reason, time.monotonic() - began, size, mtime_ns), FAILED)
