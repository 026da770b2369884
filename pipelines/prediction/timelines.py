"""Make the timelines of videos, one after the other: show how far each is, print it, and write page, JSON and CSV."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.prediction.strip import Strip
from pipelines.prediction.timeline import Asked, Timeline, make_timeline, to_json, write_csv, write_json
from pipelines.prediction.timeline_flags import TimelineRequest
from pipelines.prediction.timeline_page import clock, write_timeline
from pipelines.prediction.videos import ListedVideo, Listing
from pipelines.reports.page import file_name
from pipelines.storage.place import is_uri
from pipelines.videos.file_tree import shown
from vlmodels.errors import UserError, shortened
from vlmodels.predictor import Frames, Predictor
from vlmodels.span import Span
from vlmodels.video import VideoError

if TYPE_CHECKING:
    from vlmodels.windows import WindowReader

_SHOWN = 100
"""Segments that are printed; all are in the files."""
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Shared:
    """What holds for all videos of a command.

    Attributes:
        model: its name, as given.
        topk: classes to name for each window.
        threshold: least probability of an answer; None for the model's own.
        json: whether to print JSON instead of text.
    """

    model: str
    topk: int = 5
    threshold: float | None = None
    json: bool = False


def make_timelines(predictor: Predictor, listing: Listing, request: TimelineRequest, shared: Shared) -> int:
    """Make the timeline of each video; return 0, 1 if a video is broken, or 130 after Ctrl-C.

    What was read of a video before damage, or before Ctrl-C, is kept.

    Raises:
        UserError: the folder cannot be written to.
    """
    _prepare(request.folder)
    asked = Asked(request.window, request.stride, shared.topk, shared.threshold)
    stems = _stems([listed.video for listed in listing])
    failed = 0
    for listed, stem in zip(listing, stems, strict=True):
        video = shown(listed.name)
        try:
            reader = _open(predictor, listing, listed, request)
            strip = Strip.of(reader.start, reader.end, request.stride)
            progress = _Progress(video, reader.start, reader.end)

            def see(span: Span, frames: Frames, strip: Strip = strip, progress: _Progress = progress) -> None:
                strip.see(span, frames)
                progress.see(span)

            timeline = make_timeline(predictor, video, reader, asked, see)
            progress.finish()
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        page = _write(request.folder / stem, timeline, strip, shared.model)
        print(json.dumps(to_json(timeline, shared.model)) if shared.json else text_of(timeline, page))
        if timeline.stopped:
            failed += 1
            end, length = clock(timeline.end), clock(timeline.length)
            of = "" if end == length else f" of {length}"  # the reader counts what a damaged file holds
            print(
                f"error: {video}: the timeline ends at {end}{of}: "
                f"{timeline.stopped}; what was seen is in {page.with_suffix('')}.*",
                file=sys.stderr,
            )
        if timeline.interrupted:
            return 130
    return 1 if failed else 0


def _open(predictor: Predictor, listing: Listing, video: ListedVideo, request: TimelineRequest) -> WindowReader:
    if is_uri(video.video) and not video.video.startswith("file://"):
        raise UserError(f"{video.name}: a timeline needs the video on this machine; copy it first")
    if video.reason:
        raise VideoError(video.name, video.reason)
    path = listing.path(video.video)
    return predictor.read_windows(path, request.window, request.stride, video.fps, span=video.span)


def text_of(timeline: Timeline, page: Path) -> str:
    """Return a timeline as a few lines of text."""
    shown = timeline.segments[:_SHOWN]
    times = [(clock(segment.start), clock(segment.end)) for segment in shown]
    width = max((len(text) for pair in times for text in pair), default=0)
    lines = [timeline.video]
    for segment, (start, end) in zip(shown, times, strict=True):
        lines.append(f"  {start:>{width}} - {end:>{width}}  {100 * segment.probability:5.1f} %  {segment.label}")
    if len(timeline.segments) > _SHOWN:
        lines.append(f"  ... {len(timeline.segments) - _SHOWN} more in {page.with_suffix('.csv')}")
    return "\n".join([*lines, f"  page: {page}"])


def _prepare(folder: Path) -> None:
    """Create the folder, and write to it, before hours are spent on a video."""
    if is_uri(str(folder)):
        raise UserError(f"--timeline {folder}: timelines are written to this machine; choose a local folder")
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"--timeline {shortened(str(folder))}: {reason}; choose a folder that can be written"
        ) from error


def _stems(videos: Sequence[str]) -> list[str]:
    """Return a name for the files of each video, all different."""
    taken: set[str] = set()
    stems = []
    for video in videos:
        base = file_name(Path(video).stem[:_LONGEST_NAME]) or "video"
        name, number = base, 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        stems.append(name)
    return stems


def _write(stem: Path, timeline: Timeline, strip: Strip, model: str) -> Path:
    try:
        write_json(stem.with_name(f"{stem.name}.json"), timeline, model)
        write_csv(stem.with_name(f"{stem.name}.csv"), timeline)
        return write_timeline(stem.with_name(f"{stem.name}.html"), timeline, strip, model)
    except OSError as error:
        raise UserError(f"the timeline cannot be written to {stem.parent}: {error.strerror}") from error


@dataclass
class _Progress:
    """Says on standard error how far a long video is: on one line of a terminal, else every half minute."""

    video: str
    start: float
    end: float
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _on_line: bool = False

    def see(self, span: Span) -> None:
        """Take note of a window that was read."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._said < (1 if terminal else 30):
            return
        self._said = now
        speed = (span.end - self.start) / (now - self._began)
        name, place = shortened(Path(self.video).name, 60), f"{clock(span.end)} of {clock(self.end)}"
        text = f"{name}: {place}, {speed:.1f} times as fast as it plays"
        print(f"\r{text}\033[K" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
        self._on_line = terminal

    def finish(self) -> None:
        """Clear the line."""
        if self._on_line:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
