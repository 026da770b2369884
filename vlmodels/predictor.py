"""Names what happens in a video: a trained adapter on its backbone, from a folder or from the registry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vlmodels.checkpoint import ADAPTER, load_adapter
from vlmodels.errors import UserError
from vlmodels.preprocess import CROPS, eval_views
from vlmodels.resize import resize_cover, storage_shape, stored_short_side
from vlmodels.sampling import Indices, Sampling, view_indices
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
        crops: spatial views: 1, 3, or M2-CLIP's 4.
        sampling: the frames of a view, as ingested: one of each segment, or "dense".
        stride: frames from one to the next in dense views.
        device: where to compute.

    Raises:
        UserError: views that there are not.
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
        clips: int | None = None,
        crops: int | None = None,
        sampling: Sampling | None = None,
        stride: int | None = None,
        device: str | torch.device = "cpu",
    ) -> Predictor:
        """Load from a run's folder, or one that holds it, such as a registered model's.

        Views that are not given are those that the run was scored with (``run_views``).

        Raises:
            UserError: no adapter in it, a damaged one, or its backbone cannot be made; views that there are not.
        """
        direct = Path(folder) / ADAPTER
        found = [direct] if direct.is_file() else sorted(Path(folder).rglob(ADAPTER))
        if len(found) != 1:
            what = f"there are {len(found)} models" if found else f"there is no {ADAPTER}"
            raise UserError(f"{what} in {folder}; give the folder of one run")
        given = {"clips": clips, "crops": crops, "sampling": sampling, "stride": stride}
        chosen = run_views(found[0].parent) | {name: value for name, value in given.items() if value is not None}
        return cls(load_adapter(found[0], backbone).method, **chosen, device=device)

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

        def choose(count: int) -> Indices:
            return view_indices(count, spec.frames, self.clips, self.sampling, self.stride)

        def shrink(frames: Frames) -> Frames:
            height, width = frames.shape[1:3]
            return resize_cover(frames, *storage_shape(width, height, stored_short_side(min(spec.image_size))))

        if isinstance(video, (str, Path)):
            kept, info = read_clip(video, lambda count: np.unique(choose(count)), shrink)
            wanted = choose(info.n_frames)
        else:
            frames = video.cpu().numpy() if isinstance(video, torch.Tensor) else video
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
                raise UserError(f"frames must be uint8 (frames, H, W, 3), not {frames.dtype} {tuple(frames.shape)}")
            wanted = choose(len(frames))
            kept = shrink(frames[np.unique(wanted)])
        return kept[np.searchsorted(np.unique(wanted), wanted)]


def load(
    source: str | Path,
    *,
    backbone: Backbone | None = None,
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
        clips: temporal views of a video; these four by default as the run was scored, see ``Predictor``.
        crops: spatial views.
        sampling: the frames of a view.
        stride: frames from one to the next in dense views.
        device: where to compute.

    Raises:
        UserError: no such model or folder; see ``Predictor.from_run``.
    """
    folder = model_folder(source)
    return Predictor.from_run(
        folder, backbone=backbone, clips=clips, crops=crops, sampling=sampling, stride=stride, device=device
    )


def model_folder(source: str | Path) -> Path:
    """Folder of a run, or of a registered model ("models:/name@alias"), which is fetched.

    Raises:
        UserError: no such model or folder.
    """
    folder = _download(str(source)) if str(source).startswith("models:") else Path(source)
    if not folder.exists():
        raise UserError(f"there is no {folder}; give a run's folder or models:/NAME@ALIAS")
    return folder


def run_views(folder: Path) -> dict[str, Any]:
    """Views that the run in ``folder`` was scored with: ``Predictor``'s clips, crops, sampling and stride.

    They are ``scoring`` in run.json, else the clips and crops of config.json's ``data``, of segments. What no file
    says is not in the result.

    Raises:
        UserError: a file that is damaged.
    """
    record, config = _json(folder / "run.json"), _json(folder / "config.json")
    said = record.get("scoring") or config.get("data") or {}
    return {name: said[name] for name in ("clips", "crops", "sampling", "stride") if said.get(name)}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); copy the run again") from error
    return found if isinstance(found, dict) else {}


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
