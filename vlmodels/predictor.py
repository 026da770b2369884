"""Names what happens in a video: a trained adapter on its backbone, from a folder or from the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vlmodels.checkpoint import ADAPTER, load_adapter
from vlmodels.errors import UserError
from vlmodels.preprocess import eval_views
from vlmodels.resize import resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import pool_indices, view_offset
from vlmodels.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmodels.backbone import Backbone
    from vlmodels.methods.base import Method

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability, a softmax over the classes that were asked for."""

    label: str
    probability: float


class Predictor:
    """Scores videos against class names, those of the training or any others.

    Args:
        method: a trained method.
        clips: temporal views of a video.
        crops: spatial views, 1 or 3.
        device: where to compute.
    """

    def __init__(self, method: Method, *, clips: int = 1, crops: int = 1, device: str | torch.device = "cpu") -> None:
        self.method = method.to(device).eval()
        self.classes = method.classes
        self.clips, self.crops, self.device = clips, crops, torch.device(device)

    @classmethod
    def from_run(
        cls,
        folder: str | Path,
        *,
        backbone: Backbone | None = None,
        clips: int = 1,
        crops: int = 1,
        device: str | torch.device = "cpu",
    ) -> Predictor:
        """Load from a run's folder, or one that holds it, such as a registered model's.

        Raises:
            UserError: no adapter in it, a damaged one, or its backbone cannot be made.
        """
        found = sorted(Path(folder).rglob(ADAPTER), key=lambda path: (len(path.parts), path))
        if not found:
            raise UserError(f"there is no {ADAPTER} in {folder}")
        return cls(load_adapter(found[0], backbone).method, clips=clips, crops=crops, device=device)

    @torch.inference_mode()
    def __call__(
        self, video: str | Path | Frames | torch.Tensor, labels: Sequence[str] | None = None, topk: int = 5
    ) -> list[Prediction]:
        """The ``topk`` likeliest of ``labels`` (default: the training's classes), best first.

        Args:
            video: a file, or uint8 RGB frames (any number, H, W, 3) in order.
            labels: class names to choose from.
            topk: predictions to return, at most one per label.

        Raises:
            UserError: a video that cannot be read, frames of another type or shape, fewer than two labels.
        """
        if isinstance(labels, str):
            raise UserError(f"labels must be a list of class names, not the text '{labels}'")
        names = tuple(labels) if labels is not None else self.classes
        if names != self.method.classes:
            self.method.set_classes(names)
        views = eval_views(
            torch.from_numpy(self._views(video)).to(self.device), self.method.backbone.spec, crops=self.crops
        )
        probabilities = self.method(views).logits.softmax(dim=-1).mean(dim=0)
        values, indices = probabilities.topk(min(topk, len(names)))
        return [Prediction(names[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]

    def _views(self, video: str | Path | Frames | torch.Tensor) -> Frames:
        """Frames (clips,T,H,W,3) at the places that evaluation looks at, in the size that ingest stores."""
        spec = self.method.backbone.spec
        offsets = [view_offset(view, self.clips) for view in range(self.clips)]

        def choose(count: int) -> NDArray[np.int64]:
            return pool_indices(count, spec.frames, offsets)

        def shrink(frames: Frames) -> Frames:
            height, width = frames.shape[1:3]
            return resize_cover(frames, *storage_shape(width, height, stored_short_side(min(spec.image_size))))

        if isinstance(video, (str, Path)):
            pool = read_clip(video, choose, shrink)[0]
        else:
            frames = video.cpu().numpy() if isinstance(video, torch.Tensor) else video
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
                raise UserError(f"frames must be uint8 (frames, H, W, 3), not {frames.dtype} {tuple(frames.shape)}")
            pool = shrink(frames[choose(len(frames))])
        by_segment = pool.reshape(spec.frames, self.clips, *pool.shape[1:])
        return np.ascontiguousarray(by_segment.swapaxes(0, 1))


def load(
    source: str | Path,
    *,
    backbone: Backbone | None = None,
    clips: int = 1,
    crops: int = 1,
    device: str | torch.device = "cpu",
) -> Predictor:
    """Load a predictor from MLflow's registry or from a run's folder.

    Args:
        source: "models:/name@alias" or "models:/name/3", in the registry that MLflow is set to
            (``mlflow.set_tracking_uri`` or the variable MLFLOW_TRACKING_URI); or a folder.
        backbone: see ``load_adapter``.
        clips: temporal views of a video.
        crops: spatial views, 1 or 3.
        device: where to compute.

    Raises:
        UserError: no such model or folder; see ``Predictor.from_run``.
    """
    folder = _download(str(source)) if str(source).startswith("models:") else Path(source)
    if not folder.exists():
        raise UserError(f"there is no {folder}; give a run's folder or models:/NAME@ALIAS")
    return Predictor.from_run(folder, backbone=backbone, clips=clips, crops=crops, device=device)


def _download(uri: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    store = mlflow.get_registry_uri().removeprefix("sqlite:///")
    if store != mlflow.get_registry_uri() and not Path(store).is_file():  # asking would make an empty one
        raise UserError(
            f"{uri}: there is no registry at {store}; set MLFLOW_TRACKING_URI to where it was registered "
            "(by default sqlite:///runs/mlflow.db)"
        )
    try:
        return Path(mlflow.artifacts.download_artifacts(uri))
    except MlflowException as error:
        raise UserError(
            f"{uri} cannot be had from the registry at {mlflow.get_registry_uri()}: {str(error).splitlines()[0]}; "
            "set MLFLOW_TRACKING_URI to where it was registered"
        ) from error
