"""Predictions of a trained adapter on its backbone, loaded from a run's folder or from the model registry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vlmodels.checkpoint import ADAPTER, load_adapter
from vlmodels.errors import UserError
from vlmodels.model_folder import model_folder
from vlmodels.preprocess import CROPS, eval_views
from vlmodels.run_folder import Decision, run_decision, run_of, run_views
from vlmodels.sampling import Sampling
from vlmodels.span import Span
from vlmodels.view_reader import ViewReader
from vlmodels.windows import WindowReader, iter_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vlmodels.backbone import Backbone
    from vlmodels.methods.base import Method

Frames = NDArray[np.uint8]
_MOST_FRAMES = 4096
"""Frames of a video in all its views: the papers' most are 960, and those of a damaged record would fill the memory."""
_AT_ONCE = 1024
"""Frames that are scored at once."""
_NO_DECISION = Decision()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability among the requested classes (softmax)."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says about a video: classes, best first, and whether even the best is too improbable to be one."""

    predictions: tuple[Prediction, ...]
    none_of_these: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of N videos: ``probabilities`` float32 (N,C), and L2-normalised ``features`` float32 (N,E).

    Both are means over a video's views.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]


class Predictor:
    """A trained method that scores videos against class names, those of training or any others.

    Args:
        method: a trained method.
        clips: number of temporal views of a video.
        crops: number of spatial views: 1, 3, or M2-CLIP's 4.
        sampling: how the frames of a view are chosen, as in ingest: one of each "segments", or "dense".
        stride: distance of the frames of a dense view, in frames of the video.
        decision: temperature, and the threshold of "none of these"; by default without effect.
        device: device that computes.

    Raises:
        UserError: ``clips``, ``crops``, ``sampling`` or ``stride`` has a value that does not exist, or the views have
            more frames than the memory is likely to hold.
    """

    def __init__(
        self,
        method: Method,
        *,
        clips: int = 1,
        crops: int = 1,
        sampling: Sampling = "segments",
        stride: int = 16,
        decision: Decision = _NO_DECISION,
        device: str | torch.device = "cpu",
    ) -> None:
        if clips < 1 or crops not in CROPS or sampling not in get_args(Sampling) or stride < 1:
            raise UserError(
                f"clips={clips}, crops={crops}, sampling={sampling}, stride={stride}: clips and stride are at least 1, "
                f"crops one of {', '.join(map(str, CROPS))}, and sampling is {' or '.join(get_args(Sampling))}"
            )
        frames = method.backbone.spec.frames
        if clips * crops * frames > _MOST_FRAMES:
            raise UserError(
                f"{clips} clips x {crops} crops x {frames} frames ask for {clips * crops * frames} frames of each "
                f"video, over the limit of {_MOST_FRAMES}; choose fewer clips or crops, or copy the run again"
            )
        self.method = method.to(device).eval()
        self.classes = method.classes
        self.clips, self.crops, self.device = clips, crops, torch.device(device)
        self.sampling, self.stride = sampling, stride
        self.decision = decision

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        *,
        backbone: Backbone | None = None,
        weights: str | Path | None = None,
        clips: int | None = None,
        crops: int | None = None,
        sampling: Sampling | None = None,
        stride: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Predictor:
        """Load a predictor from a run's folder, or from a folder with one run in it, such as a registered model's.

        Views that are None are those of the run's scores (``run_views``).

        Raises:
            UserError: the folder holds no adapter, several, or a damaged one; the backbone cannot be created; or a view
                setting has a value that does not exist.
        """
        run = run_of(folder)
        given = {"clips": clips, "crops": crops, "sampling": sampling, "stride": stride}
        chosen = run_views(run) | {name: value for name, value in given.items() if value is not None}
        method = load_adapter(run / ADAPTER, backbone, weights=weights).method
        decision = run_decision(run)
        try:
            return cls(method, **chosen, decision=decision, device=device)
        except UserError as error:
            raise UserError(f"{run}: {error}") from error

    def __call__(
        self,
        video: str | Path | Frames | torch.Tensor,
        labels: Sequence[str] | None = None,
        topk: int = 5,
        *,
        start: float | None = None,
        end: float | None = None,
        fps: float = 0.0,
    ) -> list[Prediction]:
        """Return the ``topk`` most probable of ``labels`` (default: the training classes), best first.

        Args:
            video: a file, a folder of numbered pictures, or uint8 RGB frames (any number, H, W, 3) in order.
            labels: class names to choose from.
            topk: number of predictions, at most one per label.
            start: seconds of the video from which on it is looked at; None for its start.
            end: seconds up to which it is looked at; None for its end.
            fps: frames per second of a folder of pictures, of which a part is to be looked at.

        Raises:
            UserError: the video cannot be read or has no such part, the frames have another type or shape, there are
                fewer than two labels, or the scores are not finite.
        """
        return list(self.ask(video, labels, topk, start=start, end=end, fps=fps).predictions)

    def ask(
        self,
        video: str | Path | Frames | torch.Tensor,
        labels: Sequence[str] | None = None,
        topk: int = 5,
        *,
        start: float | None = None,
        end: float | None = None,
        fps: float = 0.0,
    ) -> Answer:
        """Return what ``__call__`` returns for a video, and whether it shows none of the classes."""
        self.set_labels(labels)
        scores = self.score([self.read_views(video, span_of(start, end), fps)])
        if not np.isfinite(scores.probabilities).all():
            raise UserError(
                f"{video if isinstance(video, (str, Path)) else 'the frames'}: the scores are not finite; "
                "the adapter is damaged: copy or train it again"
            )
        return self.answer(scores.probabilities[0], topk)

    def set_labels(self, labels: Sequence[str] | None = None) -> tuple[str, ...]:
        """Choose the classes that are scored: ``labels``, or those of training; return them.

        Raises:
            UserError: fewer than two, blank, repeated or unprintable names, or too long ones.
        """
        if isinstance(labels, str):
            raise UserError(f"labels must be a list of class names, not the text '{labels}'")
        names = tuple(labels) if labels is not None else self.classes
        if not names:
            raise UserError("this model has no classes of its own; name some (labels, or predict.py --labels)")
        if names != self.method.classes:
            self.method.set_classes(names)
        return names

    @torch.inference_mode()
    def score(self, videos: Sequence[Frames]) -> Scores:
        """Score videos among the classes of ``set_labels``; scores of a damaged model may be NaN.

        Args:
            videos: uint8 frames (clips,T,H,W,3) of each, as ``read_views`` returns them; sizes may differ.
        """
        outputs = [self.method(views) for views in self._passes(videos)]
        logits = torch.cat([output.logits for output in outputs]).float()
        probabilities = self._mean(torch.softmax(logits / self.decision.temperature, dim=-1), len(videos))
        features = self._mean(torch.cat([output.video for output in outputs]).float(), len(videos))
        return Scores(probabilities.cpu().numpy(), functional.normalize(features, dim=-1).cpu().numpy())

    @torch.inference_mode()
    def embed(self, videos: Sequence[Frames]) -> NDArray[np.float32]:
        """Return L2-normalised features (N,E) of videos (see ``score``), which need no classes.

        They are compared with those of ``embed_texts`` by their inner product.
        """
        features = torch.cat([self.method.encode_video(views) for views in self._passes(videos)]).float()
        found: NDArray[np.float32] = functional.normalize(self._mean(features, len(videos)), dim=-1).cpu().numpy()
        return found

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return L2-normalised features (M,E) of free texts; texts are cut at the context length."""
        found: NDArray[np.float32] = self.method.encode_captions(texts).float().cpu().numpy()
        return found

    def answer(self, probabilities: NDArray[np.float32], topk: int = 5, threshold: float | None = None) -> Answer:
        """Return the answer for one video's probabilities (C,) among the classes of ``set_labels``.

        Args:
            probabilities: a row of ``Scores.probabilities``.
            topk: number of predictions, at most one per class.
            threshold: least probability of an answer; None: the model's own, which is for its trained classes only.
        """
        names = self.method.classes
        if threshold is None and names == self.classes:
            threshold = self.decision.threshold
        best = np.argsort(-probabilities, kind="stable")[: min(topk, len(names))]
        predictions = tuple(Prediction(names[i], float(probabilities[i])) for i in best)
        return Answer(predictions, threshold is not None and predictions[0].probability < threshold)

    def _passes(self, videos: Sequence[Frames]) -> Iterator[torch.Tensor]:
        """Yield the normalised views (B,T,3,h,w) of videos in order, so many at once as the memory holds."""
        spec = self.method.backbone.spec
        waiting: list[torch.Tensor] = []
        for video in videos:
            for part in torch.split(torch.from_numpy(video), max(1, _AT_ONCE // (self.crops * video.shape[1]))):
                views = eval_views(part.to(self.device), spec, crops=self.crops)
                if waiting and (sum(map(len, waiting)) + len(views)) * views.shape[1] > _AT_ONCE:
                    yield torch.cat(waiting)
                    waiting = []
                waiting.append(views)
        if waiting:
            yield torch.cat(waiting)

    def _mean(self, values: torch.Tensor, videos: int) -> torch.Tensor:
        return values.view(videos, self.clips * self.crops, -1).mean(dim=1)

    def read_views(
        self, video: str | Path | Frames | torch.Tensor, span: Span | None = None, fps: float = 0.0
    ) -> Frames:
        """Return the uint8 frames (clips,T,H,W,3) of a video's temporal views, in the size that ingest stores.

        Args:
            video: as for ``__call__``.
            span: the part of it to look at.
            fps: frames per second of a folder of pictures.

        Raises:
            UserError: the video cannot be read or has no such part, or the frames have another type or shape.
        """
        if isinstance(video, (str, Path)):
            return self.view_reader.read(video, span, fps)[0]
        if span is not None:
            raise UserError("frames have no times: cut them yourself, or pass the file with start and end")
        frames = video.cpu().numpy() if isinstance(video, torch.Tensor) else video
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
            raise UserError(f"frames must be uint8 (frames, H, W, 3), not {frames.dtype} {tuple(frames.shape)}")
        return self.view_reader.choose(frames)

    @property
    def view_reader(self) -> ViewReader:
        """What ``read_views`` reads files with; it works without the model, in another process."""
        spec = self.method.backbone.spec
        return ViewReader(spec.frames, min(spec.image_size), self.clips, self.sampling, self.stride)

    def read_windows(
        self,
        video: str | Path,
        window: float,
        stride: float,
        fps: float = 0.0,
        *,
        span: Span | None = None,
        threads: int = 1,
    ) -> WindowReader:
        """Return an iterator over the windows of a long video: spans, and frames (clips,T,H,W,3) as of ``read_views``.

        The video is read once, and only frames of open windows are in memory (``vlmodels.windows``).

        Args:
            video: a file, or a folder of numbered pictures.
            window: seconds of a window.
            stride: seconds from the start of a window to that of the next.
            fps: frames per second of a folder of pictures.
            span: the part of the video to look at.
            threads: threads of the decoder.

        Raises:
            UserError: see ``iter_windows``; also while it is iterated, after the windows before a damage.
        """
        look = self.view_reader
        return iter_windows(video, window, stride, look.indices, look.shrink, span=span, fps=fps, threads=threads)


def best_device() -> str:
    """Return the device that a model computes on where nobody chose one: a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def span_of(start: float | None, end: float | None) -> Span | None:
    """Return the span between two times (s) of a video; None for all of it.

    Raises:
        UserError: see ``Span``.
    """
    if start is None and end is None:
        return None
    return Span(0.0 if start is None else start, math.inf if end is None else end)


def load(
    source: str | Path,
    *,
    backbone: Backbone | None = None,
    weights: str | Path | None = None,
    clips: int | None = None,
    crops: int | None = None,
    sampling: Sampling | None = None,
    stride: int | None = None,
    device: str | torch.device = "cpu",
) -> Predictor:
    """Load a predictor from MLflow's registry or from a run's folder.

    Args:
        source: "models:/name@alias" or "models:/name/3", in the registry that MLflow is set to
            (``mlflow.set_tracking_uri`` or the variable MLFLOW_TRACKING_URI); or a folder.
        backbone: see ``load_adapter``.
        weights: see ``load_adapter``.
        clips: number of temporal views; this and the next three are by default those of the run's scores.
        crops: number of spatial views.
        sampling: how the frames of a view are chosen.
        stride: distance of the frames of a dense view.
        device: device that computes.

    Raises:
        UserError: the model or folder does not exist; see also ``Predictor.from_run``.
    """
    folder = model_folder(source)
    return Predictor.from_run(
        folder,
        backbone=backbone,
        weights=weights,
        clips=clips,
        crops=crops,
        sampling=sampling,
        stride=stride,
        device=device,
    )
