"""What a prediction of many videos is asked for, and the work that is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.prediction.decode import DecodeRequest
from pipelines.prediction.model import ModelFiles
from pipelines.prediction.scoring import Scored, ScoreRequest
from pipelines.prediction.videos import Listing

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What is to be done with each video.

    Attributes:
        model: registered model, or folder or URI of a run.
        weights: weight file of the backbone, where it is not the model's own.
        labels: classes to choose from; None for the trained ones.
        device: "auto", "cpu" or "cuda".
        score: what is asked of each video.
        time_limit_s: seconds for decoding each.
        workers: videos decoded at the same time; None for one on each CPU.
        windows: seconds of the windows that are looked at, and from one to the next; None: videos as wholes.
        decode: see ``DecodeRequest``.
    """

    model: str
    weights: str | None = None
    labels: tuple[str, ...] | None = None
    device: str = "auto"
    score: ScoreRequest = field(default_factory=ScoreRequest)
    time_limit_s: float = 300.0
    workers: int | None = None
    windows: tuple[float, float] | None = None
    decode: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """The videos that are not done, and all that their scores need.

    Attributes:
        listing: all videos.
        pending: places of those that are to be done.
        request: the command's.
        decode: of the first stage.
        files: of the model.
    """

    listing: Listing
    pending: Sequence[int]
    request: BatchRequest
    decode: DecodeRequest
    files: ModelFiles

    @property
    def score(self) -> ScoreRequest:
        """What is asked of each video."""
        return self.request.score


class Run(Protocol):
    """How the pending videos are scored; tests do so in their own process."""

    def __call__(self, work: Work, say: Say, /) -> Iterator[list[Scored]]:
        """Yield scores of some videos at a time, in any order."""
