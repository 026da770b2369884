"""What the front of the server, its decoders and its model say to each other."""

# Shapes: N video or window, C class, V view, T frame, H W pixel row and column.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmodels.view_reader import ViewReader

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded version of a model is.

    Attributes:
        version: in the registry; "" for a run's folder.
        classes: trained class names; empty if it has none.
        threshold: least probability of an answer among them; None if none was chosen.
        views: frames that it looks at.
        device: that it computes on.
        adapter: SHA-256 of its adapter's file.
        search_problem: why texts and videos of it cannot be compared; "" if they can.
    """

    version: str
    classes: tuple[str, ...]
    threshold: float | None
    views: ViewReader
    device: str
    adapter: str = ""
    search_problem: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Windows over a video: seconds of each, and from the start of one to that of the next."""

    window: float
    stride: float


@dataclass(frozen=True, slots=True)
class Choice:
    """How videos are answered.

    Attributes:
        labels: class names to choose from; None for the trained ones.
        topk: number of predictions.
        threshold: least probability of an answer; None for the model's own.
    """

    labels: tuple[str, ...] | None = None
    topk: int = 5
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A video that a decoder is asked about.

    Attributes:
        path: file on the machine of the server.
        content: its bytes where the decoders may be on other machines; None where they read ``path``.
        start: seconds, or None.
        end: seconds, or None.
        pictures: whether small pictures are wanted.
        timeline: windows that are wanted, or None.
        choice: how it is answered.
        model: version that answers.
    """

    path: str
    content: bytes | None
    start: float | None
    end: float | None
    pictures: bool
    timeline: Timeline | None
    choice: Choice
    model: ModelFacts


@dataclass(frozen=True, slots=True)
class Verdict:
    """Predictions for a video or window, best first, and whether even the best is too improbable."""

    topk: tuple[tuple[str, float], ...]
    none_of_these: bool


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's answers to one request.

    Attributes:
        verdicts: one for each of the request's videos or windows.
        rows: probabilities (N,C) of all classes, from which a timeline's segments are made; None if there is none.
        batch: number of requests that were scored together, in one of their answers; 0 in the others.
        seconds: that the batch took.
        problem: why there are no verdicts, such as labels that cannot be used.
    """

    verdicts: tuple[Verdict, ...]
    rows: NDArray[np.float32] | None = None
    batch: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class WindowReply:
    """A window's answer, and its picture as JPEG, if one was asked for."""

    start: float
    end: float
    verdict: Verdict
    picture: bytes = b""


@dataclass(frozen=True, slots=True)
class SegmentReply:
    """Seconds of one label, joined from windows (``pipelines.prediction.segments``)."""

    start: float
    end: float
    label: str
    probability: float
    status: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What a decoder answers: a verdict, or the reason why there is none.

    Attributes:
        verdict: None if the video was refused.
        reason: why.
        limit: name of the limit that the video is over; "" if it is another reason.
        seconds: length of the video; 0 if unknown.
        pictures: JPEG files, in the order of the video.
        windows: of the timeline.
        segments: that they make.
        batches: sizes of the batches that it was first in.
        decode_s: seconds that decoding took.
        model_s: seconds that the model took.
    """

    verdict: Verdict | None
    reason: str = ""
    limit: str = ""
    seconds: float = 0.0
    pictures: tuple[bytes, ...] = ()
    windows: tuple[WindowReply, ...] = ()
    segments: tuple[SegmentReply, ...] = ()
    batches: tuple[int, ...] = ()
    decode_s: float = 0.0
    model_s: float = 0.0
