"""Predict a handful of videos in this process, as fast as it can start: neither Ray nor a process for the decoder."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipelines.prediction.decode import times_of
from pipelines.prediction.rows import FAILED, NONE, OK, Row
from pipelines.prediction.scoring import NOT_FINITE
from pipelines.prediction.videos import Listing
from pipelines.prediction.work import BatchRequest
from vlmodels.errors import UserError
from vlmodels.predictor import Predictor
from vlmodels.video import VideoError


def predict_few(listing: Listing, predictor: Predictor, request: BatchRequest) -> Iterator[Row]:
    """Yield the row of each video, in order, a failed one too; the labels are those of the predictor."""
    import numpy as np

    for video in listing:
        began = time.monotonic()
        reader = predictor.view_reader
        try:
            if video.reason:
                raise VideoError(video.name, video.reason)
            views, info = reader.read(listing.path(video.video), video.span, video.fps)
            probabilities = predictor.score([views]).probabilities[0]
            if not np.isfinite(probabilities).all():
                raise VideoError(video.name, NOT_FINITE)
        except UserError as error:
            reason = error.cause if isinstance(error, VideoError) else str(error)
            start, end = times_of(video.span, None)
            yield Row(video.name, start, end, FAILED, (), time.monotonic() - began, reason)
            continue
        answer = predictor.answer(probabilities, request.score.topk, request.score.threshold)
        start, end = times_of(video.span, info)
        topk = tuple((one.label, one.probability) for one in answer.predictions)
        yield Row(video.name, start, end, NONE if answer.none_of_these else OK, topk, time.monotonic() - began)
