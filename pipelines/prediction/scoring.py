"""The second stage: the frames of many videos become answers, and features, in one pass of the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.prediction.decode import FatalError, Look
from pipelines.prediction.rows import FAILED, NONE, OK
from vlmodels.errors import UserError
from vlmodels.predictor import Predictor
from vlmodels.video import Frames

NOT_FINITE = "the scores are not finite; the adapter is damaged: copy or train it again"


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What is asked about each video.

    Attributes:
        topk: number of classes.
        threshold: least probability of an answer; None: the model's own.
        classes: whether there are classes to choose from; else features alone are made.
        features: whether features are wanted.
    """

    topk: int = 5
    threshold: float | None = None
    classes: bool = True
    features: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer about a look, which no longer has its frames."""

    look: Look
    status: str
    topk: tuple[tuple[str, float], ...] = ()
    feature: NDArray[np.float32] | None = None


def score_looks(predictor: Predictor, looks: Sequence[Look], request: ScoreRequest) -> list[Scored]:
    """Score looks, those without frames among them, and return their answers in order."""
    seen = [look for look in looks if look.frames is not None]
    began = time.monotonic()
    found = _score(predictor, [look.frames for look in seen if look.frames is not None], request)
    share = (time.monotonic() - began) / max(1, len(seen))
    scored = iter(found)
    return [_joined(look, None if look.frames is None else next(scored), share, request) for look in looks]


@dataclass(frozen=True, slots=True)
class _Answer:
    topk: tuple[tuple[str, float], ...] = ()
    is_none: bool = False
    feature: NDArray[np.float32] | None = None
    reason: str = ""


def _joined(look: Look, answer: _Answer | None, share: float, request: ScoreRequest) -> Scored:
    if answer is None:
        return Scored(look, FAILED)
    bare = replace(look, frames=None, reason=answer.reason, seconds=look.seconds + share)
    if answer.reason:
        return Scored(bare, FAILED)
    return Scored(bare, NONE if answer.is_none else OK, answer.topk, answer.feature if request.features else None)


def _score(predictor: Predictor, videos: Sequence[Frames], request: ScoreRequest) -> list[_Answer]:
    """Score videos together; one by one where that fails, so that the reason falls to the video that has it."""
    if not videos:
        return []
    try:
        return _in_one_pass(predictor, videos, request)
    except (UserError, RuntimeError, MemoryError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        elif "CUDA error" in str(error):  # of no video: all that come after it would fail too
            raise FatalError(f"the GPU has failed: {' '.join(str(error).split())[:300]}") from error
        if len(videos) == 1:
            return [_Answer(reason=f"cannot be scored: {' '.join(str(error).split())[:300]}")]
    return [answer for video in videos for answer in _score(predictor, [video], request)]


def _in_one_pass(predictor: Predictor, videos: Sequence[Frames], request: ScoreRequest) -> list[_Answer]:
    if not request.classes:
        features = predictor.embed(videos)
        return [_Answer(feature=one) if np.isfinite(one).all() else _Answer(reason=NOT_FINITE) for one in features]
    scores = predictor.score(videos)
    found = []
    for probabilities, feature in zip(scores.probabilities, scores.features, strict=True):
        if not np.isfinite(probabilities).all():
            found.append(_Answer(reason=NOT_FINITE))
            continue
        answer = predictor.answer(probabilities, request.topk, request.threshold)
        topk = tuple((one.label, one.probability) for one in answer.predictions)
        found.append(_Answer(topk, answer.none_of_these, feature))
    return found
