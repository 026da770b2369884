"""What an adapter file says about itself, checked as data before anything is built from it.

By hand and not by pydantic, whose import takes longer than a prediction's first frame.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vlmodels.errors import UserError, unprintable
from vlmodels.hub import FILES, hub_folder

FORMAT = 1
_OWN = "own"  # ``OWN`` of picture_statistics, whose import takes longer than reading facts
_LONGEST_NAME = 1000
_MOST_FRAMES = 4096

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class WeightFile:
    """Size and SHA-256 of a local weight file, by which it is known again."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, most: int | None = None) -> WeightFile:
        """Return the facts of a file; a file of more than ``most`` bytes is not read to its end.

        Raises:
            OSError: it cannot be read.
        """
        size, sha = path.stat().st_size, hashlib.sha256()
        left = size if most is None else most
        with path.open("rb") as file:
            while left > 0 and (part := file.read(min(left, 1 << 20))):
                sha.update(part)
                left -= len(part)
        return cls(size, sha.hexdigest())

    def is_that_of(self, path: Path) -> bool:
        """Return whether a file is this one; False if there is none.

        Raises:
            OSError: it cannot be read.
        """
        return path.is_file() and path.stat().st_size == self.bytes and WeightFile.of(path, self.bytes) == self


@dataclass(frozen=True)
class BackboneFacts:
    """The backbone that an adapter was trained on.

    ``weights`` is a tag, the path of a local file or "" (random); ``digest`` is that of its tensors; ``statistics``
    names the frames' mean and deviation. ``beside`` are the files of a Hugging Face tokenizer and text tower, where the
    weights are a file. Adapters of earlier versions name a path without ``file``, the facts of the file.
    """

    name: str
    weights: str
    frames: int
    digest: str
    file: WeightFile | None = None
    statistics: str = _OWN
    beside: Mapping[str, WeightFile] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterFacts:
    """The metadata of an adapter file."""

    method: str
    config: Mapping[str, Any]
    backbone: BackboneFacts
    classes: tuple[str, ...]
    built_for_classes: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    tensors: str = ""  # SHA-256 of the tensors (``tensors_digest``); adapters of earlier versions have none

    def to_json(self) -> str:
        """Return the text of the metadata."""
        plain = {"format": FORMAT, **dataclasses.asdict(self)}
        if self.backbone.file is None:
            del plain["backbone"]["file"]
        if self.backbone.statistics == _OWN:
            del plain["backbone"]["statistics"]
        if not self.backbone.beside:
            del plain["backbone"]["beside"]
        return json.dumps(plain)


def parse_facts(text: str, source: str) -> AdapterFacts:
    """Return the facts that an adapter's metadata holds.

    Args:
        text: JSON.
        source: the file, for messages.

    Raises:
        UserError: a fact is missing, or has another type or an impossible value; the message names the first.
    """
    try:
        plain = _of({"metadata": json.loads(text)}, "metadata", dict)
        if _of(plain, "format", int) != FORMAT:
            raise _WrongError(f"it has format {plain['format']}; this version reads {FORMAT}")
        return AdapterFacts(
            method=_name(plain, "method"),
            config=_of(plain, "config", dict),
            backbone=_backbone(_of(plain, "backbone", dict)),
            classes=_classes(plain),
            built_for_classes=_of({"built_for_classes": True, **plain}, "built_for_classes", bool),
            extra=_of({"extra": {}, **plain}, "extra", dict),
            tensors=_hash(plain, "tensors") if "tensors" in plain else "",
        )
    except (ValueError, RecursionError) as error:
        reason = str(error)[:300] if isinstance(error, _WrongError) else "its metadata is not JSON"
        raise UserError(f"{source} is not a whole adapter of this package: {reason}; copy or train it again") from None


class _WrongError(ValueError):
    """A fact is missing or wrong."""


def _of(plain: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    if name not in plain:
        raise _WrongError(f"its metadata lacks '{name}'")
    value = plain[name]
    if type(value) is not kind:
        raise _WrongError(f"'{name}' in its metadata is of type {type(value).__name__}, not {kind.__name__}")
    return value


def _name(plain: Mapping[str, Any], name: str, *, path: bool = False) -> str:
    text = _of(plain, name, str)
    if len(text) > _LONGEST_NAME:
        raise _WrongError(f"'{name}' in its metadata has {len(text)} characters")
    if not path and (character := unprintable(text)):  # a path may be no UTF-8; messages escape it
        raise _WrongError(f"'{name}' in its metadata holds the character {character}")
    return text


def _hash(plain: Mapping[str, Any], name: str) -> str:
    text = _of(plain, name, str)
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise _WrongError(f"'{name}' in its metadata is no SHA-256")
    return text


def _classes(plain: Mapping[str, Any]) -> tuple[str, ...]:
    names = _of(plain, "classes", list)
    if not all(isinstance(name, str) for name in names):
        raise _WrongError("'classes' in its metadata are not all text")
    for number, name in enumerate(names, 1):
        if character := unprintable(name):
            raise _WrongError(f"the name of class {number} in its metadata holds the character {character}")
    return tuple(names)


def _backbone(plain: Mapping[str, Any]) -> BackboneFacts:
    frames = _of(plain, "frames", int)
    if not 1 <= frames <= _MOST_FRAMES:
        raise _WrongError(f"'frames' in its metadata is not between 1 and {_MOST_FRAMES}")
    file = _of(plain, "file", dict) if "file" in plain else None
    beside = _of({"beside": {}, **plain}, "beside", dict)
    if unknown := sorted(str(name)[:50] for name in beside if name not in FILES):
        raise _WrongError(f"'beside' in its metadata names {unknown[0]!r}, which is no file of a tokenizer")
    return BackboneFacts(
        name=_name(plain, "name"),
        weights=_name(plain, "weights", path=True),
        frames=frames,
        digest=_hash(plain, "digest"),
        file=None if file is None else _weight_file(file),
        statistics=_name({"statistics": _OWN, **plain}, "statistics"),
        beside={name: _weight_file(_of(beside, name, dict)) for name in beside},
    )


def _weight_file(plain: Mapping[str, Any]) -> WeightFile:
    return WeightFile(_of(plain, "bytes", int), _hash(plain, "sha256"))


_GIVE = (
    "give the file that you trust: --weights FILE (in Python: weights=FILE; to MLflow: VIDADAPT_WEIGHTS=FILE in the "
    "environment)"
)


def recorded_weights(backbone: BackboneFacts, adapter: str) -> str:
    """Return the weights that a backbone is created with: a tag, or the path of the very file that was trained on.

    Args:
        backbone: of the adapter.
        adapter: its file, for messages.

    Raises:
        UserError: the weights are random, or a file that has no recorded hash, is not here or has other content.
    """
    from vlmodels.clip import tags

    if not backbone.weights:
        raise UserError(
            f"{adapter} belongs to a '{backbone.name}' with random weights (digest {backbone.digest[:12]}), "
            "which cannot be created again; pass that backbone"
        )
    if backbone.weights in tags(backbone.name):
        return backbone.weights
    path, give = Path(backbone.weights), _GIVE
    if backbone.file is None:
        raise UserError(
            f"{adapter} names the weights {str(path)!r}, which is no published tag, and a file is opened only by its "
            f"hash, which is not recorded; {give}"
        )
    travelled = Path(adapter).parent.parent / path.name  # beside the run in a registered model
    try:
        for found in (path, travelled):
            if backbone.file.is_that_of(found):
                return str(found)
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter}: its weights {str(path)!r} cannot be read ({error}); {give}") from error
    state = "have changed since" if path.is_file() else "are not on this machine"
    raise UserError(f"{adapter}: its weights {str(path)!r} {state} (SHA-256 {backbone.file.sha256[:12]}); {give}")


def recorded_beside(backbone: BackboneFacts, adapter: str, weights: str | Path) -> Path | None:
    """Return the folder with the very tokenizer that a backbone was trained with; None if it needs none of its own.

    It is looked for beside the weights, where it was, in a registered model, and on the hub.

    Args:
        backbone: of the adapter.
        adapter: its file.
        weights: those that the backbone is created with.

    Raises:
        UserError: no folder has it; the message names its files.
    """
    beside = backbone.beside
    if not beside:
        return None
    folders = [Path(weights).parent, Path(backbone.weights).parent, Path(adapter).parent.parent]
    with contextlib.suppress(OSError, ValueError):
        for folder in folders:
            if _all_in(folder, beside):
                return folder
    from vlmodels.tokenizers import hub_name  # torch: late

    reason = "it is not beside the weight file"
    if name := hub_name(backbone.name):
        try:
            folder = hub_folder(name, lambda cache: all((cache / file).is_file() for file in beside))
        except UserError as error:
            reason = str(error)
        else:
            if _all_in(folder, beside):
                return folder
            reason = f"that of '{name}' on the hub is another by now"
    files = ", ".join(f"{name} (SHA-256 {file.sha256[:12]})" for name, file in beside.items())
    raise UserError(f"{adapter} was trained with a tokenizer that is not here: {reason}; put {files} beside {weights}")


def _all_in(folder: Path, files: Mapping[str, WeightFile]) -> bool:
    return all(file.is_that_of(folder / name) for name, file in files.items())
