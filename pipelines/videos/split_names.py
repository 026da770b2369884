"""Names of folders, lists and CSV cells that stand for a part of the data: train, validation or test."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Literal

Part = Literal["train", "validation", "test"]

PART_NAMES: Mapping[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Words by which folders and lists name a part of the data."""

_MORE_NAMES: Mapping[Part, tuple[str, ...]] = {
    "train": (),
    "validation": ("dev", "validate"),
    "test": ("eval", "evaluation"),
}
"""Words that do so where they stand alone; in the name of a list they may mean something else."""

_DECORATION = (
    r"(?:set|list|split|part|fold|data|dataset|video|clip|frame|rawframe|image|img|folder|dir|file|sample)s?"
    r"|rgb|jpg|png|mp4|avi|webm|raw|resized|compressed|cropped|small|mini|tiny|full|original|official|new|final"
    r"|short|side|size|fps|px?|[a-dvx]"
)
_NUMBERED = re.compile(r"(?:split|fold|part|chunk|shard|batch|cv)[ _-]?\d+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


def split_of_folder(name: str) -> Part | None:
    """Return the part that a folder's name certainly stands for: its words are a part's name and decoration alone.

    ``train_256``, ``training_set``, ``TrainSplit1``, ``val-frames`` and ``trainlist01``; not ``train station``,
    ``trainval`` or ``k400_train``.
    """
    return _split_of_folder(name.casefold())


def split_in_name(name: str) -> Part | None:
    """Return the part that a list or folder may stand for, as one word of its name says (``k400_train``, ``val1``)."""
    if certain := split_of_folder(name):
        return certain
    words = {word.rstrip("0123456789") for word in re.split(r"[^a-z0-9]+", name.lower())}
    found = [part for part, known in PART_NAMES.items() if words & set(known)]
    return found[0] if len(found) == 1 else None


def is_numbered_part(name: str) -> bool:
    """Return whether a name only numbers a piece of the data (``split1``, ``fold_2``): neither class nor part."""
    return _NUMBERED.fullmatch(name) is not None


@functools.lru_cache(maxsize=1 << 16)
def _split_of_folder(name: str) -> Part | None:
    words = _WORD.findall(name)
    found = [part for word in words if (part := _part_of_word(word))]
    rest = [word for word in words if not _part_of_word(word)]
    if len(found) != 1 or not all(re.fullmatch(_DECORATION, word) for word in rest):
        return None
    return found[0]


def _part_of_word(word: str) -> Part | None:
    for part, names in PART_NAMES.items():
        known = "|".join((*names, *_MORE_NAMES[part]))
        if re.fullmatch(rf"(?:{known})(?:{_DECORATION})?", word):
            return part
    return None
