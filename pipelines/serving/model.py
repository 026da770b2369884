"""The Serve deployment that holds the model: it scores what waits together, and holds two versions while one goes."""

# Shapes: N video or window, C class, V view, T frame, H W pixel row and column.

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipelines.serving.messages import Choice, Frames, ModelFacts, Scored, SegmentReply, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vlmodels.predictor import Predictor
    from vlmodels.span import Span

MOST_TOGETHER = 16
"""Requests that are scored in one batch; the predictor splits what the memory does not hold."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Where the model is, and where it computes.

    Attributes:
        source: a run's folder, or ``models:/NAME@ALIAS`` or ``models:/NAME/3``.
        weights: weight file of the backbone, or None.
        device: torch's name of it.
        registry: tracking URI of MLflow; "" for none.
        threads: that compute on a CPU; 0 for as many as Ray gives, which is one for each CPU that it reserves.
    """

    source: str
    weights: str | None = None
    device: str = "cpu"
    registry: str = ""
    threads: int = 0

    def uri_of(self, version: str) -> str:
        """Return the URI of a version of the model; a folder has none."""
        if not version:
            return self.source
        return f"{self.source.partition('@')[0]}/{version}" if "@" in self.source else self.source


@dataclass(slots=True)
class _Waiting:
    """A request that waits to be scored."""

    version: str
    choice: Choice
    videos: tuple[Frames, ...]
    answer: asyncio.Future[Scored] = field(repr=False)


class Model:
    """A replica with one or two versions of a model.

    Not ``serve.batch``: that takes requests out of its queue while a batch is computed, so that under load its batches
    stay as small as its waiting time is short (``ray.serve.batching._BatchQueue``, Ray 2.60). Here a batch is all that
    waits at the moment at which the model is free.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._predictors: dict[str, Predictor] = {}
        self._adapters: dict[str, str] = {}
        self._loading = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        if settings.registry:
            os.environ["MLFLOW_TRACKING_URI"] = settings.registry

    async def prepare(self, version: str) -> ModelFacts:
        """Load a version and score something with it, unless it is there; return its facts.

        Raises:
            UserError: it cannot be loaded.
        """
        return await asyncio.to_thread(self._facts, version)

    async def keep(self, version: str) -> None:
        """Drop all versions but this one."""
        for other in self._predictors.keys() - {version}:
            self._predictors.pop(other, None)

    async def score(self, version: str, choice: Choice, videos: tuple[Frames, ...]) -> Scored:
        """Return the verdicts on videos, frames (V,T,H,W,3) each, or why the labels or the model cannot be used."""
        answer: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(version, choice, videos, answer))
        if not self._busy:
            self._busy = True
            self._task = asyncio.create_task(self._score_what_waits())
        return await answer

    async def join(
        self, version: str, choice: Choice, spans: Sequence[Span], rows: NDArray[np.float32]
    ) -> tuple[SegmentReply, ...]:
        """Return the segments that the windows of a timeline make, from their probabilities (N,C)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._joined, version, choice, spans, rows)

    async def embed_texts(self, version: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return the normalised features (M,E) of texts.

        Raises:
            UserError: the version cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._predictor(version).embed_texts(texts))

    async def _score_what_waits(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._score_batch(batch)
        finally:
            self._busy = False

    def _next_batch(self) -> list[_Waiting]:
        """Take the requests that can be scored with the one that waits longest."""
        first = self._waiting[0]
        alike = [
            one for one in self._waiting if (one.version, one.choice.labels) == (first.version, first.choice.labels)
        ]
        batch = alike[:MOST_TOGETHER]
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    async def _score_batch(self, batch: list[_Waiting]) -> None:
        from vlmodels.errors import UserError

        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._thread, self._scored, batch)
        except UserError as error:
            answers = [Scored((), problem=str(error))] * len(batch)
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    def _scored(self, batch: list[_Waiting]) -> list[Scored]:
        from vlmodels.errors import UserError

        began = time.perf_counter()
        predictor = self._predictor(batch[0].version)
        predictor.set_labels(batch[0].choice.labels)
        videos = [video for one in batch for video in one.videos]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing writes
            probabilities = predictor.score(videos).probabilities
        if not np.isfinite(probabilities).all():
            raise UserError("the scores are not finite; the adapter is damaged: copy or train it again")
        seconds = time.perf_counter() - began
        answers, done = [], 0
        for number, one in enumerate(batch):
            rows = probabilities[done : done + len(one.videos)]
            done += len(one.videos)
            verdicts = tuple(_verdict(predictor, row, one.choice) for row in rows)
            answers.append(Scored(verdicts, rows, 0 if number else len(batch), seconds))
        return answers

    def _joined(
        self, version: str, choice: Choice, spans: Sequence[Span], rows: NDArray[np.float32]
    ) -> tuple[SegmentReply, ...]:
        from pipelines.prediction.segments import Segmenter  # torch: late

        predictor = self._predictor(version)
        predictor.set_labels(choice.labels)
        segmenter = Segmenter(lambda row: predictor.answer(row, 1, choice.threshold))
        for span, row in zip(spans, rows, strict=True):
            segmenter.add(span, row)
        return tuple(
            SegmentReply(one.start, one.end, one.label, one.probability, one.status) for one in segmenter.finish()
        )

    def _predictor(self, version: str) -> Predictor:
        """Return a version's predictor; a replica that was started again may have to load it."""
        with self._loading:
            if version not in self._predictors:
                self._predictors[version] = self._load(version)
            return self._predictors[version]

    def _load(self, version: str) -> Predictor:
        import torch  # late, as all that imports it: this module is imported by the front too

        from pipelines.storage.cache import local_run
        from pipelines.storage.files import file_sha256
        from vlmodels import load
        from vlmodels.checkpoint import ADAPTER
        from vlmodels.model_folder import model_folder
        from vlmodels.run_folder import run_of

        settings = self._settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        folder = model_folder(local_run(settings.uri_of(version)))
        predictor = load(folder, weights=settings.weights, device=settings.device)
        self._adapters[version] = file_sha256(run_of(folder) / ADAPTER)
        views = predictor.view_reader
        if predictor.classes:
            blank = np.zeros((views.clips, views.frames, views.size, views.size, 3), np.uint8)
            predictor.set_labels(None)
            predictor.score([blank])
        return predictor

    def _facts(self, version: str) -> ModelFacts:
        predictor = self._predictor(version)
        return ModelFacts(
            version=version,
            classes=tuple(predictor.classes),
            threshold=predictor.decision.threshold,
            views=predictor.view_reader,
            device=str(predictor.device),
            adapter=self._adapters[version],
            search_problem="; ".join(predictor.method.search_problems()),
        )


def _verdict(predictor: Predictor, row: NDArray[np.float32], choice: Choice) -> Verdict:
    answer = predictor.answer(row, choice.topk, choice.threshold)
    return Verdict(tuple((one.label, one.probability) for one in answer.predictions), answer.none_of_these)
