"""Answers for many videos given as strings: one for each, in order, errors among them."""

# Shapes: C class.

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmodels.errors import UserError, shortened
from vlmodels.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlmodels.predictor import Frames
    from vlmodels.video_sources import VideoSources

_AT_ONCE = 16
"""Videos that are decoded before they are scored together."""


@dataclass(frozen=True, slots=True)
class VideoAnswer:
    """What a model says about one video.

    Attributes:
        predictions: classes, best first; none of a video that failed.
        status: "ok"; "none" if even the best class is too improbable; "failed" if there is no score.
        reason: why it is not "ok", else "".
    """

    predictions: tuple[Prediction, ...]
    status: Literal["ok", "none", "failed"] = "ok"
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as lists and dictionaries."""
        return {**asdict(self), "predictions": [asdict(one) for one in self.predictions]}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about each video of a batch.

    Attributes:
        topk: number of predictions, at most one per class.
        labels: class names to choose from; none: those of training.
        threshold: least probability of an answer; None: the model's own, if it has one.
        clips: number of temporal views; None: that of the model's scores.
    """

    topk: int = 5
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    clips: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            UserError: names the value.
        """
        if self.topk < 1:
            raise UserError(f"topk={self.topk} must be at least 1")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UserError(f"threshold={self.threshold} must be a probability from 0 to 1")
        if self.clips is not None and self.clips < 1:
            raise UserError(f"clips={self.clips} must be at least 1")


class VideoAnswers:
    """Answers questions about videos; several threads may ask.

    Args:
        predictor: of the model.
        sources: what may be read.
    """

    def __init__(self, predictor: Predictor, sources: VideoSources) -> None:
        self._predictor = predictor
        self._sources = sources
        self._scoring = threading.Lock()  # the classes are the predictor's, not the call's

    def __call__(self, videos: Sequence[object], question: Question) -> list[VideoAnswer]:
        """Return an answer for each of ``videos`` (see ``VideoSources.file``), in order.

        Raises:
            UserError: the question cannot be asked of this model.
        """
        predictor = self._asked(question.clips)
        with self._scoring:  # before anything is read
            predictor.set_labels(question.labels or None)
        answers: list[VideoAnswer] = []
        for begin in range(0, len(videos), _AT_ONCE):
            answers += self._answers(predictor, videos[begin : begin + _AT_ONCE], question)
        return answers

    def _asked(self, clips: int | None) -> Predictor:
        own = self._predictor
        if clips is None or clips == own.clips:
            return own
        settings = {"crops": own.crops, "sampling": own.sampling, "stride": own.stride, "decision": own.decision}
        other = Predictor(own.method, clips=clips, device=own.device, **settings)  # type: ignore[arg-type]
        other.classes = own.classes  # those of training, whatever was asked last
        return other

    def _answers(self, predictor: Predictor, videos: Sequence[object], question: Question) -> list[VideoAnswer]:
        read = [self._read(predictor, video) for video in videos]
        views = [one for one in read if not isinstance(one, str)]
        with self._scoring:
            predictor.set_labels(question.labels or None)
            rows = iter(predictor.score(views).probabilities if views else ())
            return [
                VideoAnswer((), "failed", one) if isinstance(one, str) else _answer(predictor, next(rows), question)
                for one in read
            ]

    def _read(self, predictor: Predictor, video: object) -> Frames | str:
        """Return a video's views, or why there are none."""
        try:
            with self._sources.file(video) as (path, name), _named(str(path), name):
                return predictor.read_views(path)
        except UserError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - it is this video's; the others have answers
            return f"{type(error).__name__}: {shortened(' '.join(str(error).split()))}"


def _answer(predictor: Predictor, probabilities_C: NDArray[np.float32], question: Question) -> VideoAnswer:
    if not np.isfinite(probabilities_C).all():
        return VideoAnswer((), "failed", "the scores are not finite; the adapter is damaged: register it again")
    found = predictor.answer(probabilities_C, question.topk, question.threshold)
    if not found.none_of_these:
        return VideoAnswer(found.predictions)
    best = math.floor(found.predictions[0].probability * 1000) / 1000
    return VideoAnswer(found.predictions, "none", f"none of these: the best has a probability of only {best:.3f}")


@contextlib.contextmanager
def _named(path: str, name: str) -> Iterator[None]:
    """Let errors name a video as it was given, not by the copy that was read."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(path, name)) from error
