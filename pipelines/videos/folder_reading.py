"""The ways to read a tree of folders: which folders are classes, and which are splits.

A reading is plausible or not by the folders' names and by where the videos lie. Whoever asks takes the only plausible
one, or refuses: nothing here decides between two.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipelines.videos.split_names import is_numbered_part, split_in_name, split_of_folder

Layout = Literal["classes", "splits", "class-splits", "nested", "flat", "list"]
FOLDER_LAYOUTS: tuple[Layout, ...] = ("classes", "splits", "class-splits", "nested", "flat")
"""Those of folders."""
LAYOUTS: Mapping[Layout, str] = {
    "classes": "CLASS/x.mp4",
    "splits": "SPLIT/CLASS/x.mp4",
    "class-splits": "CLASS/SPLIT/x.mp4",
    "nested": "the innermost folder is the class",
    "flat": "no classes",
    "list": "labels of lists as they are, even where folders are named after other classes",
}
"""What each means, for ``--help``."""
READ_AS: Mapping[Layout, str] = {
    "classes": "class folders",
    "splits": "split folders of class folders",
    "class-splits": "class folders of split folders",
    "nested": "nested folders of which the innermost are the classes",
    "flat": "videos without classes",
    "list": "listed",
}
"""What each is called in a sentence."""
WRAPPERS = frozenset(("videos", "video", "data", "dataset", "datasets", "clips", "raw_videos", "rawvideos"))
"""Names of a folder around everything, which is no class."""
_GROUP = re.compile(r"[a-z]*[ _-]?\d+", re.IGNORECASE)
"""``g01``, ``person3``, ``0012``: a source or a session below a class, and no class of its own."""

Folder = tuple[str, ...]


class Meaning(NamedTuple):
    """The class and the split of the videos in a folder; "" for none."""

    label: str = ""
    split: str = ""


@dataclass(frozen=True)
class Reading:
    """A way to read a tree.

    Attributes:
        layout: its name.
        meanings: class and split of each folder that holds videos.
        counts: number of videos of each of these folders.
    """

    layout: Layout
    meanings: Mapping[str, Meaning]
    counts: Mapping[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({meaning.label for meaning in self.meanings.values()} - {""}))

    @property
    def unlabelled(self) -> int:
        """The number of videos without a class."""
        return sum(self.counts[folder] for folder, meaning in self.meanings.items() if not meaning.label)

    @property
    def splits(self) -> Counter[str]:
        """The number of videos of each split, "" for none."""
        found: Counter[str] = Counter()
        for folder, meaning in self.meanings.items():
            found[meaning.split] += self.counts[folder]
        return found


def read_as(layout: Layout, counts: Mapping[str, int]) -> Reading:
    """Read folders in one way.

    Args:
        layout: how.
        counts: number of videos in each folder, by its path.
    """
    tree = _Tree.of(counts)
    meaning = _MEANINGS[layout](tree)
    return Reading(layout, {path: meaning(folder) for path, folder in tree.folders.items()}, counts)


def plausible(counts: Mapping[str, int]) -> list[Reading]:
    """Return the plausible readings of folders, at least one."""
    return [read_as(layout, counts) for layout in _plausible(_Tree.of(counts))]


@dataclass(frozen=True)
class _Tree:
    """Folders that hold videos: by path, as the names below a folder around everything (``data/``)."""

    folders: Mapping[str, Folder]

    @classmethod
    def of(cls, paths: Iterable[str]) -> _Tree:
        folders = {path: tuple(path.split("/")) if path else () for path in paths}
        around = _around(set(folders.values()))
        return cls({path: folder[around:] for path, folder in folders.items()})

    def below(self) -> dict[str, set[Folder]]:
        """Return what is below each topmost folder: ``()`` for videos right in it."""
        found: dict[str, set[Folder]] = defaultdict(set)
        for folder in self.folders.values():
            if folder:
                found[folder[0]].add(folder[1:])
        return found

    def is_split(self) -> Callable[[str], object]:
        """Return what tells names of splits: certainly ones if there are any, else those that have such a word."""
        certain = any(split_of_folder(name) for folder in self.folders.values() for name in folder[:2])
        return split_of_folder if certain else split_in_name


def _around(folders: set[Folder]) -> int:
    """Return how many folders are around everything, and are neither class nor split."""
    around = 0
    while len(tops := {folder[around : around + 1] for folder in folders}) == 1 and tops != {()}:
        ((top,),) = tops
        inner = [folder[around + 1 :] for folder in folders]
        has_splits = all(inner) and all(split_of_folder(folder[0]) for folder in inner)
        if split_of_folder(top) or not (top.lower() in WRAPPERS or (has_splits and max(map(len, inner)) > 1)):
            break
        around += 1
    return around


# ------------------------------------------------------------------------------------------------ what is plausible


def _plausible(tree: _Tree) -> list[Layout]:
    below = tree.below()
    splits = {top for top in below if split_of_folder(top)}
    if not below:
        return ["flat"]
    if not splits:
        return _without_splits(below)
    classes = _below_splits(below, splits)
    nested: list[Layout] = ["flat"] if classes and all(map(is_numbered_part, classes)) else _nested(classes)
    if splits == below.keys():
        return ["splits", *nested]
    bare = all(below[top] == {()} for top in splits)
    if bare and not any(split_of_folder(top) == "train" for top in splits):
        return ["splits"]  # Kinetics' test/ beside class folders: its videos have no label
    return ["splits", "classes", *nested]


def _without_splits(below: Mapping[str, set[Folder]]) -> list[Layout]:
    inner = {folder[0] for folders in below.values() for folder in folders if folder}
    if any(map(split_of_folder, inner)):
        siblings = all(folder and split_of_folder(folder[0]) for folders in below.values() for folder in folders)
        if siblings and len(below) > 1:  # set/train/class, where folders below have names, too
            deeper = {folder[1] for folders in below.values() for folder in folders if len(folder) > 1}
            return ["class-splits"] if all(map(_GROUP.fullmatch, deeper)) else ["class-splits", "nested"]
        return ["class-splits", "classes", *_nested(below)]
    parts = {split_in_name(top) for top in below}
    if None not in parts and "train" in parts and len(parts) > 1:  # k400_train, k400_val
        return ["splits", "classes"]
    if all(map(is_numbered_part, below)):  # split1, fold2, part_3
        return ["classes", "nested" if inner else "flat"]
    return ["classes", *_nested(below)]


def _nested(below: Mapping[str, set[Folder]]) -> list[Layout]:
    return ["nested"] if _may_be_nested(below) else []


def _below_splits(below: Mapping[str, set[Folder]], splits: set[str]) -> dict[str, set[Folder]]:
    """Return what is below each class folder, whichever split it is in."""
    found: dict[str, set[Folder]] = defaultdict(set)
    for top in splits:
        for folder in below[top]:
            if folder:
                found[folder[0]].add(folder[1:])
    return found


def _may_be_nested(classes: Mapping[str, set[Folder]]) -> bool:
    """Return whether the folders below class folders may be the classes: no videos beside them, and names of their own.

    Folders that are numbered (``walking/person01``), or have one name in all classes (``walking/clips``), are not.
    """
    inner = {top: {folder[0] for folder in folders} for top, folders in classes.items() if () not in folders}
    if not inner:
        return False
    names = {name for found in inner.values() for name in found}
    if all(_GROUP.fullmatch(name) for name in names):
        return False
    same = len(names) == 1 and len(inner) == len(classes)
    return not same or len(classes) == 1 or all(_GROUP.fullmatch(top) for top in classes)


# ------------------------------------------------------------------------------------------------ what folders mean


def _as_classes(_: _Tree) -> Callable[[Folder], Meaning]:
    return lambda folder: Meaning(folder[0] if folder else "")


def _as_splits(tree: _Tree) -> Callable[[Folder], Meaning]:
    """Take the outer folder as split; beside splits without class folders, others are classes that are in no split."""
    is_split = tree.is_split()
    with_classes = any(len(folder) > 1 and is_split(folder[0]) for folder in tree.folders.values())

    def meaning(folder: Folder) -> Meaning:
        if folder and (is_split(folder[0]) or (with_classes and len(folder) > 1)):
            return Meaning(folder[1] if len(folder) > 1 else "", folder[0])
        return Meaning(folder[0] if folder else "")

    return meaning


def _as_class_splits(tree: _Tree) -> Callable[[Folder], Meaning]:
    is_split = tree.is_split()

    def meaning(folder: Folder) -> Meaning:
        split = folder[1] if len(folder) > 1 and is_split(folder[1]) else ""
        return Meaning(folder[0] if folder else "", split)

    return meaning


def _as_nested(tree: _Tree) -> Callable[[Folder], Meaning]:
    """Take the innermost folder as the class; where its name occurs in two others, with the name of the outer one."""
    stripped = {folder: _without_split(folder) for folder in tree.folders.values()}
    parents: dict[str, set[Sequence[str]]] = defaultdict(set)
    for folder, _ in stripped.values():
        if folder:
            parents[folder[-1]].add(tuple(name for name in folder[:-1] if not is_numbered_part(name)))

    def meaning(folder: Folder) -> Meaning:
        names, split = stripped[folder]
        if not names:
            return Meaning("", split)
        return Meaning("/".join(names[-2:]) if len(parents[names[-1]]) > 1 else names[-1], split)

    return meaning


def _without_split(folder: Folder) -> tuple[Folder, str]:
    """Return the folder without the outermost name that is a split's, and that name."""
    at = next((at for at, name in enumerate(folder) if split_of_folder(name)), None)
    return (folder, "") if at is None else ((*folder[:at], *folder[at + 1 :]), folder[at])


def _as_flat(_: _Tree) -> Callable[[Folder], Meaning]:
    return lambda _: Meaning()


_MEANINGS: Mapping[Layout, Callable[[_Tree], Callable[[Folder], Meaning]]] = {
    "classes": _as_classes,
    "splits": _as_splits,
    "class-splits": _as_class_splits,
    "nested": _as_nested,
    "flat": _as_flat,
}
