"""The Serve deployment that decodes: child processes turn files into frames, which go to the model.

A file that crashes or hangs a decoder costs its own request only: the child is ended and started again.
"""

# Shapes: V view, T frame, H W pixel row and column.

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.ingestion.isolation import Decoded, IsolatedDecoder
from pipelines.serving.frames import PARTS, WHOLE, ReadSettings, seconds_of
from pipelines.serving.messages import Ask, Frames, Reply, Scored, WindowReply
from vlmodels.span import MICRO, Cuts, Span
from vlmodels.view_reader import ViewReader
from vlmodels.windows import tile

AT_ONCE = 16
"""Windows that are decoded in one go, and scored together: they bound the memory of a long video."""
_IDLE_LIMIT_S = 86_400.0
"""A child waits that long for work, as the first request after it would wait for another child."""
_NO_FILE = "/dev/null/none"
PICTURES = 8
PICTURE_HEIGHT = 120
"""Pixels: of the pictures that the page shows."""


@dataclass(frozen=True, slots=True)
class DecoderSettings:
    """How a replica decodes: in ``workers`` child processes, within limits (``serving.limits.Limits``)."""

    workers: int
    max_seconds: float
    max_pixels: int
    max_windows: int
    decode_s: float


class Reading(Protocol):
    """Turns parts of a file into frames, as ``Pool`` does."""

    async def read(self, path: str, views: ViewReader, spans: Sequence[Span | None]) -> list[Decoded]:
        """Return frames (V,T,H,W,3) and facts of each part of a video; None stands for all of it."""
        ...


class Decoder:
    """A replica: decodes what it is asked about, and asks the model for its verdict.

    Args:
        model: handle of the deployment of ``serving.model.Model``.
        settings: of its child processes.
        pool: of child processes; made here if there is none.
    """

    def __init__(self, model: Any, settings: DecoderSettings, pool: Reading | None = None) -> None:
        self._model = model
        self._pool: Reading = pool or Pool(settings)
        self._workers, self._max_windows = settings.workers, settings.max_windows

    async def warm(self, views: ViewReader) -> None:
        """Start the child processes for the views of a model, so that no request waits for that."""
        await asyncio.gather(*(self._pool.read(_NO_FILE, views, [None]) for _ in range(self._workers)))

    async def predict(self, ask: Ask) -> Reply:
        """Return the model's answer about a video, or why it cannot be read."""
        with _local_copy(ask) as path:
            return await self._predict(path, ask)

    async def _predict(self, path: str, ask: Ask) -> Reply:
        began = time.perf_counter()
        span = span_of_times(ask.start, ask.end)
        if ask.timeline is not None:
            span = span or Span(0.0)  # as a part, whose seconds are exact
        (whole,) = await self._pool.read(path, ask.model.views, [span])
        decode_s = time.perf_counter() - began
        if whole.frames is None or whole.info is None:
            return refusal(whole.error)
        scored: Scored = await self._model.score.remote(ask.model.version, ask.choice, (whole.frames,))
        if scored.problem:
            return Reply(None, scored.problem)
        reply = Reply(
            verdict=scored.verdicts[0],
            seconds=seconds_of(whole.info),
            pictures=tuple(_jpeg(frame) for frame in _spread(whole.frames[0])) if ask.pictures else (),
            batches=_batch_of(scored),
            decode_s=decode_s,
            model_s=scored.seconds,
        )
        if ask.timeline is None:
            return reply
        start = ask.start or 0.0
        end = start + max(reply.seconds, 10.0**-MICRO)
        spans = tile(start, end, ask.timeline.window, ask.timeline.stride)
        if len(spans) > self._max_windows:
            reason = f"its timeline has {len(spans)} windows, over the limit of {self._max_windows}; raise stride"
            return Reply(None, reason, "max_windows")
        found = [window async for window in self._windows(path, ask, spans)]
        if not found:
            return Reply(None, "no window of it shows a frame")
        parts = [Span(window.start, window.end) for window, _ in found]
        rows = np.stack([row for _, row in found])
        segments = await self._model.join.remote(ask.model.version, ask.choice, parts, rows)
        return replace(reply, windows=tuple(window for window, _ in found), segments=segments)

    async def _windows(
        self, path: str, ask: Ask, spans: list[Span]
    ) -> AsyncIterator[tuple[WindowReply, NDArray[np.float32]]]:
        for start in range(0, len(spans), AT_ONCE):
            some = spans[start : start + AT_ONCE]
            parts = await self._pool.read(path, ask.model.views, some)
            read = [(span, part.frames) for span, part in zip(some, parts, strict=True) if part.frames is not None]
            if not read:  # times beyond the last frame, where the header promises more
                continue
            scored: Scored = await self._model.score.remote(
                ask.model.version, ask.choice, tuple(frames for _, frames in read)
            )
            assert scored.rows is not None
            for (span, frames), verdict, row in zip(read, scored.verdicts, scored.rows, strict=True):
                picture = _jpeg(frames[0, frames.shape[1] // 2]) if ask.pictures else b""
                yield WindowReply(span.start, span.end, verdict, picture), row


class Pool:
    """Child processes, as many as ``workers``, each with a video at a time; who comes first is served first."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="decode")
        self._free: list[_Worker] = [_Worker() for _ in range(settings.workers)]

    async def read(self, path: str, views: ViewReader, spans: Sequence[Span | None]) -> list[Decoded]:
        """Return frames (V,T,H,W,3) and facts of each part of a video; None stands for all of it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, path, views, spans)

    def _read(self, path: str, views: ViewReader, spans: Sequence[Span | None]) -> list[Decoded]:
        worker = self._free.pop()  # as many as threads, so there is one
        try:
            return worker.read(path, views, spans, self._settings)
        finally:
            self._free.append(worker)

    def pids(self) -> list[int]:
        """Return the process numbers of the children."""
        return [worker.decoder.pid for worker in self._free if worker.decoder and worker.decoder.pid]

    def close(self) -> None:
        """End the children."""
        self._threads.shutdown()
        for worker in self._free:
            worker.close()


@dataclass(slots=True)
class _Worker:
    """A child process, made for the views of a model; another model's views make another."""

    decoder: IsolatedDecoder | None = None
    views: ViewReader | None = field(default=None)

    def read(
        self, path: str, views: ViewReader, spans: Sequence[Span | None], settings: DecoderSettings
    ) -> list[Decoded]:
        if self.decoder is None or self.views != views:
            self.close()
            read = ReadSettings(views, settings.max_seconds, settings.max_pixels)
            self.decoder = IsolatedDecoder(
                WHOLE, read, views.most_bytes, settings.decode_s, PARTS, idle_limit_s=_IDLE_LIMIT_S
            )
            self.views = views
        cuts = None if list(spans) == [None] else [Cuts(tuple(spans))]
        # Copied, as the memory is the child's; and those that have no frames keep their reason.
        return [
            one if one.frames is None else Decoded(np.array(one.frames), one.info) for one in self.decoder([path], cuts)
        ]

    def close(self) -> None:
        if self.decoder is not None:
            self.decoder.close()
            self.decoder = None


def span_of_times(start: float | None, end: float | None) -> Span | None:
    """Return the span between two times, which were checked before; None for all of a video."""
    if start is None and end is None:
        return None
    return Span(start or 0.0) if end is None else Span(start or 0.0, end)


def refusal(error: str) -> Reply:
    """Return the reply about a video that cannot be read; the reason may begin with the name of a limit."""
    limit, colon, rest = error.partition(": ")
    if colon and limit in ("max_pixels", "max_seconds"):
        return Reply(None, rest, limit)
    return Reply(None, error, "decode_s" if error.startswith("decoding takes more than") and "GB" not in error else "")


def _batch_of(scored: Scored) -> tuple[int, ...]:
    return (scored.batch,) if scored.batch else ()


def _spread(frames: Frames) -> list[Frames]:
    """Return at most ``PICTURES`` of the frames (T,H,W,3), evenly spaced."""
    return [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, PICTURES).round().astype(int))]


def _jpeg(frame: Frames) -> bytes:
    from PIL import Image

    picture = Image.fromarray(frame)
    picture.thumbnail((PICTURE_HEIGHT * 4, PICTURE_HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


@contextlib.contextmanager
def _local_copy(ask: Ask) -> Iterator[str]:
    """Yield a path of the video on this machine."""
    if ask.content is None:
        yield ask.path
        return
    with tempfile.NamedTemporaryFile(prefix="vidadapt-") as file:
        file.write(ask.content)
        file.flush()
        yield file.name
