"""Make a timeline of a long video: windows, their scores, and the segments that these make; in JSON and CSV."""

# Shapes: V view, T frame of a view, C class.

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.prediction.cells import text_cell
from pipelines.prediction.segments import NONE, Segment, Segmenter
from pipelines.shards.prefetch import prefetched
from pipelines.storage.files import write_whole
from vlmodels.errors import UserError
from vlmodels.predictor import Answer, Frames, Predictor
from vlmodels.readers.clip import VideoError
from vlmodels.span import MICRO, Span

if TYPE_CHECKING:
    from vlmodels.windows import WindowReader

SCHEMA = 1
_AT_ONCE = 64
"""Frames that are scored at once: more are hardly faster on a CPU, and take memory."""
INTERRUPTED = "stopped by Ctrl-C"


class Window(NamedTuple):
    """A window and its answer."""

    span: Span
    answer: Answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a video.

    Attributes:
        window: seconds of a window.
        stride: seconds from the start of one to that of the next.
        topk: classes to name for each window.
        threshold: least probability of an answer; None for the model's own.
    """

    window: float
    stride: float
    topk: int = 5
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a model sees in a video, second by second.

    Attributes:
        video: path as given.
        asked: window, stride, and so on.
        start: seconds of the video at which it begins.
        end: seconds at which it ends; less than ``length`` if it was stopped.
        length: seconds up to which the video was to be looked at.
        windows: each window's answer, in order.
        segments: the labels, in order (``pipelines.prediction.segments``).
        stopped: why it ends before ``length``; "" if it does not.
    """

    video: str
    asked: Asked
    start: float
    end: float
    length: float
    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]
    stopped: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.stopped == INTERRUPTED


def make_timeline(
    predictor: Predictor,
    video: str,
    reader: WindowReader,
    asked: Asked,
    see: Callable[[Span, Frames], None] = lambda *_: None,
) -> Timeline:
    """Score the windows of a video and join them; what was read before damage, or before Ctrl-C, is kept.

    Args:
        predictor: the model, its labels chosen.
        video: path as given.
        reader: the windows (``Predictor.read_windows``).
        asked: as ``reader`` was asked.
        see: is called with each window and its frames (V,T,H,W,3), before it is scored.

    Raises:
        UserError: no window can be read, or the scores are not finite.
    """
    windows: list[Window] = []
    segmenter = Segmenter(lambda row: predictor.answer(row, 1, asked.threshold))
    waiting: list[tuple[Span, Frames]] = []
    stopped = ""

    def score() -> None:
        batch = waiting[:]
        waiting.clear()  # first: what is scored while Ctrl-C comes is lost, rather than there twice
        rows = predictor.score([frames for _, frames in batch]).probabilities if batch else ()
        for (span, _), row in zip(batch, rows, strict=True):
            if not np.isfinite(row).all():
                raise UserError(f"{video}: the scores are not finite; the adapter is damaged: copy or train it again")
            windows.append(Window(span, predictor.answer(row, asked.topk, asked.threshold)))
            segmenter.add(span, row)

    try:
        try:
            for span, frames in prefetched(reader):
                see(span, frames)
                waiting.append((span, frames))
                if len(waiting) * frames[..., 0, 0, 0].size * predictor.crops >= _AT_ONCE:
                    score()
        except VideoError as error:
            stopped = error.cause
        score()
    except (KeyboardInterrupt, SystemExit):
        stopped = INTERRUPTED
        score()  # a second Ctrl-C ends this
    if not windows and stopped != INTERRUPTED:
        raise VideoError(video, stopped or "no window of it shows a frame")
    end = windows[-1].span.end if windows else reader.start
    segments = tuple(segmenter.finish())
    return Timeline(video, asked, reader.start, end, reader.end, tuple(windows), segments, stopped)


def to_json(timeline: Timeline, model: str) -> dict[str, Any]:
    """Return a timeline as JSON's objects; times are in seconds of the video."""
    return {
        "schema": SCHEMA,
        "video": timeline.video,
        "model": model,
        "window": timeline.asked.window,
        "stride": timeline.asked.stride,
        "threshold": timeline.asked.threshold,
        "start": timeline.start,
        "end": timeline.end,
        "length": timeline.length,
        "complete": not timeline.stopped,
        "reason": timeline.stopped,
        "segments": [_segment(segment) for segment in timeline.segments],
        "windows": [_window(window) for window in timeline.windows],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "start": segment.start,
        "end": segment.end,
        "status": segment.status,
        "label": segment.label,
        "probability": round(segment.probability, MICRO),
    }


def _window(window: Window) -> dict[str, Any]:
    found = window.answer.predictions
    return {
        "start": window.span.start,
        "end": window.span.end,
        "status": "none" if window.answer.none_of_these else "ok",
        "label": NONE if window.answer.none_of_these else found[0].label,
        "probability": round(found[0].probability, MICRO),
        "topk": [{"label": one.label, "probability": round(one.probability, MICRO)} for one in found],
    }


def write_json(path: Path, timeline: Timeline, model: str) -> None:
    """Write a timeline: segments, and each window's answer.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(to_json(timeline, model), indent=1) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_csv(path: Path, timeline: Timeline) -> None:
    """Write the segments of a timeline: ``start,end,status,label,probability``.

    Raises:
        OSError: they cannot be written.
    """

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ["start", "end", "status", "label", "probability"], lineterminator="\n")
            table.writeheader()
            table.writerows(_segment(one) | {"label": text_cell(one.label)} for one in timeline.segments)

    write_whole(path, write)
