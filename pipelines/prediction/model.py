"""The model of a prediction: opened once, known by its digests, and sent to processes that may not see its folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.storage.cache import local_file, local_run
from pipelines.storage.files import file_sha256
from vlmodels.checkpoint import ADAPTER
from vlmodels.errors import UserError
from vlmodels.model_folder import model_folder
from vlmodels.predictor import Predictor
from vlmodels.run_folder import run_of


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model is, for the record of its results.

    Attributes:
        model: URI or folder as given.
        run: name of the run that trained it.
        adapter_sha256: of its adapter file.
        backbone: name of its backbone.
        weights_digest: of the backbone's tensors.
        dim: E, length of its features.
        views: clips, crops, sampling, stride, and frames of a view.
        decision: temperature and threshold.
        classes: number of trained classes.
    """

    model: str
    run: str
    adapter_sha256: str
    backbone: str
    weights_digest: str
    dim: int
    views: Mapping[str, Any]
    decision: Mapping[str, Any]
    classes: int


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a run, small as they are, and how it is loaded: enough to load it on another machine.

    Attributes:
        files: content by name, without the backbone's weights.
        weights: weight file of the backbone, where it is not the model's own.
        labels: classes to choose from; None for the trained ones.
    """

    files: Mapping[str, bytes]
    weights: str | None = None
    labels: tuple[str, ...] | None = None

    def load(self, device: str) -> Predictor:
        """Load the predictor, with its labels set.

        Raises:
            UserError: it cannot be loaded here.
        """
        weights = str(local_file(self.weights)) if self.weights else None
        with tempfile.TemporaryDirectory(prefix="vidadapt-model-") as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            predictor = Predictor.from_run(folder, weights=weights, device=device)
        if self.labels is not None or predictor.classes:
            predictor.set_labels(self.labels)
        return predictor


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A loaded model, what it is, and its files."""

    predictor: Predictor
    facts: ModelFacts
    files: ModelFiles

    def has_classes(self) -> bool:
        """Whether there are classes to choose from."""
        return self.files.labels is not None or bool(self.predictor.classes)


def open_model(
    given: str, *, weights: str | None = None, labels: Sequence[str] | None = None, device: str = "cpu"
) -> OpenModel:
    """Load a registered model or a run, which may lie in a store.

    Raises:
        UserError: there is no such model, it is damaged, or the labels are wrong.
    """
    run = run_of(model_folder(local_run(given)))
    content = {path.name: path.read_bytes() for path in sorted(run.glob("*.json")) if path.is_file()}
    content[ADAPTER] = (run / ADAPTER).read_bytes()
    weights = weights or _travelled_weights(run)
    files = ModelFiles(content, weights and _absolute(weights), tuple(labels) if labels is not None else None)
    predictor = Predictor.from_run(run, weights=weights and local_file(weights), device=device)
    if labels is not None:
        predictor.set_labels(labels)
    spec = predictor.method.backbone.spec
    facts = ModelFacts(
        model=given,
        run=_name(content.get("run.json", b""), run.name),
        adapter_sha256=file_sha256(run / ADAPTER),
        backbone=spec.name,
        weights_digest=predictor.method.backbone.digest,
        dim=spec.embed_dim,
        views={
            "clips": predictor.clips,
            "crops": predictor.crops,
            "sampling": predictor.sampling,
            "stride": predictor.stride,
            "frames": spec.frames,
        },
        decision=asdict(predictor.decision),
        classes=len(predictor.classes),
    )
    return OpenModel(predictor, facts, files)


def choose_device(wanted: str) -> str:
    """Return the device of this machine that is meant: "auto" is a GPU, if there is one.

    Raises:
        UserError: there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if has_gpu else "cpu"
    try:
        kind = torch.device(wanted).type
    except RuntimeError:
        raise UserError(f"--device {wanted}: choose auto, cpu, cuda or cuda:N") from None
    if kind == "cuda" and not has_gpu:
        raise UserError(f"--device {wanted}: PyTorch sees no GPU here; choose --device cpu")
    return wanted


def _travelled_weights(run: Path) -> str | None:
    """Return the weight file that lies beside the run in a registered model (``tracking.include_weights``), or None."""
    from vlmodels.checkpoint import about_adapter

    backbone = about_adapter((run / ADAPTER).read_bytes(), str(run / ADAPTER)).backbone
    beside = run.parent / Path(backbone.weights or "").name
    return str(beside) if backbone.file is not None and beside.is_file() else None


def _absolute(weights: str) -> str:
    return weights if "://" in weights else str(Path(weights).absolute())


def _name(record: bytes, otherwise: str) -> str:
    """Return the name in a run's record, if it says one."""
    try:
        found = json.loads(record or b"{}")
    except ValueError:
        return otherwise
    return str(found.get("name") or otherwise) if isinstance(found, dict) else otherwise
