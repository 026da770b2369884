"""Predictions of a trained adapter on its backbone, loaded from a run's folder or from the model registry."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vlmodels.checkpoint import ADAPTER, load_adapter
from vlmodels.cuts import read_cut
from vlmodels.errors import UserError
from vlmodels.local_registry import local_model_folder, registry_file
from vlmodels.paths import is_there
from vlmodels.preprocess import CROPS, eval_views
from vlmodels.resize import resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import Indices, Sampling, view_indices
from vlmodels.span import Span
from vlmodels.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmodels.backbone import Backbone
    from vlmodels.methods.base import Method
    from vlmodels.readers.clip import ChooseIndices, Transform, VideoInfo

Frames = NDArray[np.uint8]
_FARTHEST = 10_000
"""The largest distance of frames, and number of views, that a record may name."""
_MOST_FRAMES = 4096
"""Frames of a video in all its views: the papers' most are 960, and those of a damaged record would fill the memory."""
_AT_ONCE = 1024
"""Frames that are scored at once."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability among the requested classes (softmax)."""

    label: str
    probability: float


class Predictor:
    """A trained method that scores videos against class names, those of training or any others.

    Args:
        method: a trained method.
        clips: number of temporal views of a video.
        crops: number of spatial views: 1, 3, or M2-CLIP's 4.
        sampling: how the frames of a view are chosen, as in ingest: one of each "segments", or "dense".
        stride: distance of the frames of a dense view, in frames of the video.
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
        direct = Path(folder) / ADAPTER
        found = [direct] if direct.is_file() else sorted(Path(folder).rglob(ADAPTER))
        if len(found) != 1:
            content = f"there are {len(found)} models" if found else f"there is no {ADAPTER}"
            raise UserError(f"{content} in {folder}; give the folder of one run")
        given = {"clips": clips, "crops": crops, "sampling": sampling, "stride": stride}
        chosen = run_views(found[0].parent) | {name: value for name, value in given.items() if value is not None}
        method = load_adapter(found[0], backbone, weights=weights).method
        try:
            return cls(method, **chosen, device=device)
        except UserError as error:
            raise UserError(f"{found[0].parent}: {error}") from error

    @torch.inference_mode()
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
        if isinstance(labels, str):
            raise UserError(f"labels must be a list of class names, not the text '{labels}'")
        names = tuple(labels) if labels is not None else self.classes
        if not names:
            raise UserError("this model has no classes of its own; name some (labels, or predict.py --labels)")
        if names != self.method.classes:
            self.method.set_classes(names)
        clips = torch.from_numpy(self.read_views(video, span_of(start, end), fps)).to(self.device)
        probabilities = self._logits(clips).softmax(dim=-1).mean(dim=0)
        if not probabilities.isfinite().all():
            raise UserError(
                f"{video if isinstance(video, (str, Path)) else 'the frames'}: the scores are not finite; "
                "the adapter is damaged: copy or train it again"
            )
        values, indices = probabilities.topk(min(topk, len(names)))
        return [Prediction(names[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]

    def _logits(self, clips: torch.Tensor) -> torch.Tensor:
        """Return logits (views, classes) of uint8 clips (B,T,H,W,3), so many views at once as the memory holds."""
        part = max(1, _AT_ONCE // (self.crops * clips.shape[1]))
        spec = self.method.backbone.spec
        parts = (eval_views(some, spec, crops=self.crops) for some in torch.split(clips, part))
        return torch.cat([self.method(views).logits for views in parts])

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
        spec = self.method.backbone.spec

        def choose(count: int) -> Indices:
            return view_indices(count, spec.frames, self.clips, self.sampling, self.stride)

        def shrink(frames: Frames) -> Frames:
            height, width = frames.shape[1:3]
            return resize_cover(frames, *storage_shape(width, height, stored_short_side(min(spec.image_size))))

        if isinstance(video, (str, Path)):
            kept, info = _read(video, span, lambda count: np.unique(choose(count)), shrink, fps)
            wanted = choose(info.n_frames)
        else:
            if span is not None:
                raise UserError("frames have no times: cut them yourself, or pass the file with start and end")
            frames = video.cpu().numpy() if isinstance(video, torch.Tensor) else video
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
                raise UserError(f"frames must be uint8 (frames, H, W, 3), not {frames.dtype} {tuple(frames.shape)}")
            wanted = choose(len(frames))
            kept = shrink(frames[np.unique(wanted)])
        return kept[np.searchsorted(np.unique(wanted), wanted)]


def span_of(start: float | None, end: float | None) -> Span | None:
    """Return the span between two times (s) of a video; None for all of it.

    Raises:
        UserError: see ``Span``.
    """
    if start is None and end is None:
        return None
    return Span(0.0 if start is None else start, math.inf if end is None else end)


def _read(
    video: str | Path, span: Span | None, indices: ChooseIndices, shrink: Transform, fps: float
) -> tuple[Frames, VideoInfo]:
    if span is None:
        return read_clip(video, indices, shrink, fps=fps)
    return read_cut(video, span, indices, shrink, fps=fps)


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


def model_folder(source: str | Path) -> Path:
    """Return the folder of a run, or of a registered model ("models:/name@alias"), which is downloaded.

    Raises:
        UserError: the model or folder does not exist.
    """
    folder = _download(str(source)) if str(source).startswith("models:") else Path(source)
    if not is_there(folder):
        raise UserError(f"there is no {folder}; give a run's folder or models:/NAME@ALIAS")
    return folder


def run_views(folder: Path) -> dict[str, Any]:
    """Return the views of a run's scores: ``Predictor``'s clips, crops, sampling and stride.

    They are ``scoring`` in run.json, or else clips and crops in ``data`` of config.json, of segments. Settings that
    neither file has are left out.

    Raises:
        UserError: a file is damaged.
    """
    # The keys are those of pipelines.records.run_file, which this package cannot import: it stands alone.
    record, config = _read_json(folder / "run.json"), _read_json(folder / "config.json")
    views = record.get("scoring") or config.get("data") or {}
    kinds = {"clips": int, "crops": int, "sampling": str, "stride": int}
    found = {name: views[name] for name in kinds if views.get(name)} if isinstance(views, dict) else {"views": views}
    wrong = [f"{name}={str(value)[:50]}" for name, value in found.items() if type(value) is not kinds.get(name)]
    wrong += [
        f"{name}={str(value)[:50]}"
        for name, value in found.items()
        if type(value) is int and not 0 < value <= _FARTHEST
    ]
    if wrong:
        raise UserError(f"{folder}: the run's views are damaged ({', '.join(wrong)}); copy it again")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); copy the run again") from error
    return found if isinstance(found, dict) else {}


def _download(uri: str) -> Path:
    file = registry_file()
    if file is not None and not file.is_file():  # MLflow would create an empty one
        raise UserError(_no_registry(uri, file))
    return local_model_folder(uri) or _download_with_mlflow(uri)


def _download_with_mlflow(uri: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    store = mlflow.get_registry_uri().removeprefix("sqlite:///")
    if store != mlflow.get_registry_uri() and not Path(store).is_file():
        raise UserError(_no_registry(uri, store))
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except MlflowException as error:
        raise UserError(
            f"{uri} cannot be loaded from the registry at {mlflow.get_registry_uri()}: {str(error).splitlines()[0]}; "
            "set MLFLOW_TRACKING_URI to where it was registered"
        ) from error


def _no_registry(uri: str, store: str | Path) -> str:
    return (
        f"{uri}: there is no registry at {store}; set MLFLOW_TRACKING_URI to where it was registered "
        "(by default sqlite:///runs/mlflow.db)"
    )
