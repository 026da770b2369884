"""Adapter files: safetensors with the trained tensors only, and metadata that names their method and backbone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch.overrides import TorchFunctionMode

from vlmodels import methods
from vlmodels.adapter_facts import (
    AdapterFacts,
    BackboneFacts,
    WeightFile,
    parse_facts,
    recorded_beside,
    recorded_weights,
)
from vlmodels.clip import create
from vlmodels.errors import UserError
from vlmodels.methods.base import config_from_plain
from vlmodels.paths import is_file
from vlmodels.tokenizers import files_of
from vlmodels.weights import not_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from vlmodels.backbone import Backbone
    from vlmodels.methods.base import Method

ADAPTER = "adapter.safetensors"
_KEY = "vidadapt"
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_SPARE = 1 << 24
"""Elements that building a method may need beside those of its file."""


@dataclass(frozen=True)
class Adapter:
    """A loaded adapter: the method on its backbone, its training classes, and the extra values of its file."""

    method: Method
    classes: tuple[str, ...]
    extra: Mapping[str, Any]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors to a file that is complete whenever it exists.

    Raises:
        UserError: the file cannot be written.
    """
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {}))
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load the tensors that ``save_tensors`` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not is_file(path):
        raise UserError(f"there is no {path.name} in {path.parent}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error}); copy or train it again") from error


def save_adapter(
    folder: Path, method: Method, *, classes: Sequence[str] = (), extra: Mapping[str, Any] | None = None
) -> Path:
    """Write ``folder/adapter.safetensors``: the trained tensors, and metadata for ``load_adapter``; return its path.

    Args:
        folder: an existing folder.
        method: the trained method.
        classes: names of the training classes, for a method that was not built for fixed classes.
        extra: further JSON values for the metadata.

    Raises:
        UserError: the file cannot be written.
    """
    spec = method.backbone.spec
    weights, tensors = Path(spec.weights), method.adapter_state_dict()
    about = AdapterFacts(
        method=method.name,
        config=dataclasses.asdict(method.config),
        backbone=BackboneFacts(
            name=spec.name,
            weights=spec.weights,
            frames=spec.frames,
            digest=method.backbone.digest,
            file=WeightFile.of(weights) if weights.is_absolute() and weights.is_file() else None,
            statistics=spec.statistics,
            beside={file.name: WeightFile.of(file) for file in files_of(method.backbone.tokenizer)}
            if weights.is_absolute()
            else {},
        ),
        classes=tuple(method.trained_classes or classes or method.classes),
        built_for_classes=bool(method.trained_classes),
        extra=dict(extra or {}),
        tensors=_tensors_digest(tensors),
    )
    path = Path(folder) / ADAPTER
    save_tensors(path, tensors, {_KEY: about.to_json()})
    return path


def load_adapter(folder: Path, backbone: Backbone | None = None, *, weights: str | Path | None = None) -> Adapter:
    """Load the method that ``save_adapter`` wrote, in eval mode and with its training classes set.

    Args:
        folder: the folder, or the file itself.
        backbone: a backbone without a method; by default one with the recorded name and weights.
        weights: weight file of the backbone, where the recorded one is elsewhere. A file that the adapter names is
            opened only if its recorded hash holds.

    Raises:
        UserError: the file is missing, damaged or not an adapter; the backbone has other weights or cannot be created.
    """
    folder = Path(folder)
    path = folder if is_file(folder) else folder / ADAPTER
    tensors, metadata = _read(path)
    if _KEY not in metadata:
        raise UserError(f"{path} is not an adapter of this package: its metadata names no method")
    about = parse_facts(metadata[_KEY], str(path))
    _refuse_wrong_values(about, tensors, str(path))
    cls = methods.get(about.method)
    built_for = about.classes if about.built_for_classes else ()
    config = config_from_plain(cls, about.config)
    if backbone is None:
        chosen = weights or recorded_weights(about.backbone, str(path))
        backbone = _recreate(about.backbone, chosen, recorded_beside(about.backbone, str(path), chosen), path)
    if backbone.digest != about.backbone.digest:
        recorded, found = about.backbone, backbone.spec
        raise UserError(
            f"{path} was trained on backbone '{recorded.name}' ({recorded.weights or 'random weights'}, "
            f"digest {recorded.digest[:12]}), not on '{found.name}' ({found.weights or 'random weights'}, "
            f"digest {backbone.digest[:12]}); use the backbone that it was trained on"
        )
    _refuse_other_statistics(about.backbone.statistics, backbone, str(path))
    with _AtMost(_SPARE + 4 * sum(tensor.numel() for tensor in tensors.values()), f"{path}: its settings"):
        method = cls(backbone, config, built_for)
    method.load_adapter_state_dict(tensors)
    if about.classes:
        method.set_classes(about.classes)
    return Adapter(method.eval(), about.classes, about.extra)


def load_into(method: Method, adapter: bytes) -> None:
    """Load the bytes of an adapter file of the same method and backbone into ``method``, as a start for training.

    Raises:
        UserError: the file is damaged, of another method or backbone, or has other tensors than this configuration.
    """
    about = about_adapter(adapter)
    if about.method != method.name or about.backbone.digest != method.backbone.digest:
        raise UserError(
            f"the adapter to start from is a {about.method} on {about.backbone.name} (digest "
            f"{about.backbone.digest[:12]}), not a {method.name} on {method.backbone.spec.name} (digest "
            f"{method.backbone.digest[:12]})"
        )
    _refuse_other_statistics(about.backbone.statistics, method.backbone, "the adapter to start from")
    tensors = load(adapter)
    _refuse_wrong_values(about, tensors, "the adapter to start from")
    method.load_adapter_state_dict(tensors)


def about_adapter(adapter: bytes, source: str = "the adapter to start from") -> AdapterFacts:
    """Return the metadata of an adapter file's bytes: method, config, backbone, classes.

    Raises:
        UserError: the file is damaged or not an adapter of this package.
    """
    try:
        load(adapter)
        length = int.from_bytes(adapter[:8], "little")
        text = json.loads(adapter[8 : 8 + length])["__metadata__"][_KEY]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{source} is damaged or not of this package ({error})") from error
    return parse_facts(text, source)


def _tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of named tensors."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _refuse_wrong_values(about: AdapterFacts, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError for values that are not those that were saved, or that no training leaves: NaN and infinity."""
    if about.tensors and about.tensors != _tensors_digest(tensors):
        raise UserError(f"{source} is damaged: its values have changed since it was saved; copy or train it again")
    if wrong := not_finite(tensors):
        raise UserError(f"{source} {wrong}; copy or train it again")


def _refuse_other_statistics(recorded: str, backbone: Backbone, source: str) -> None:
    """Raise UserError for a backbone that normalises frames otherwise: its features would be others, unsaid."""
    if recorded != backbone.spec.statistics:
        raise UserError(
            f"{source} was trained on frames of the statistics '{recorded}', not '{backbone.spec.statistics}'; "
            f"use those: --set backbone.statistics={recorded} (in Python: create(..., statistics='{recorded}'))"
        )


class _AtMost(TorchFunctionMode):
    """Refuses new tensors of more than ``left`` elements in all: settings may name any size, the file's tensors not."""

    def __init__(self, left: int, what: str) -> None:
        super().__init__()
        self._left, self._what = left, what

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            size = kwargs.get("size", args)
            size = size[0] if size and isinstance(size[0], (tuple, list)) else size
            self._left -= math.prod(axis for axis in size if isinstance(axis, int))
            if self._left < 0:
                raise UserError(f"{self._what} ask for tensors far larger than its own; copy or train it again")
        return func(*args, **kwargs)


def _recreate(recorded: BackboneFacts, weights: str | Path, beside: Path | None, path: Path) -> Backbone:
    try:
        return create(
            recorded.name,
            weights=weights,
            num_frames=recorded.frames,
            statistics=recorded.statistics,
            beside=beside,
        )
    except UserError as error:
        raise UserError(f"the backbone of {path} cannot be created: {error}; or pass a backbone") from error
