"""Find listed videos below a root, though releases differ in folders, prefixes, suffixes and case.

The tree is scanned once, and only if a video is not where its list says (or on request). Names are compared as text: a
name may hold ``[``, ``#``, ``&`` or a space, and nothing here is a pattern.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from pipelines.videos.file_tree import read_tree
from pipelines.videos.split_names import split_of_folder

LONGEST_NAME = 255
"""Bytes of a file's name on all common file systems."""
UNFINISHED = (".part", ".crdownload")
"""What downloaders append to the names of files that are not whole yet."""


class Found(NamedTuple):
    """The path of a listed video below the root; "" and the reason if it was not found."""

    path: str
    reason: str = ""


class Tree(Protocol):
    """The files below a root, on this machine or in a store; as text, its path or URI."""

    def has(self, path: str) -> bool:
        """Return whether there is a file at ``path`` below the root."""

    def videos(self) -> Iterable[str]:
        """Return the paths of all videos below the root."""

    def why_not(self, path: str) -> str:
        """Return why there is no file at ``path``, where that is more than that nothing is there; else ""."""


@dataclass(frozen=True)
class LocalTree:
    """The files below a folder of this machine."""

    root: Path

    def has(self, path: str) -> bool:
        """Return whether there is a file or frame folder at ``path`` below the root; it may lead out of it."""
        place = self.root / path
        try:
            return place.is_file() or (place.is_dir() and _is_frame_folder(place))
        except OSError:  # a name or path that is too long
            return False

    def videos(self) -> Iterable[str]:
        """Return the paths of all videos below the root."""
        return read_tree(self.root).videos

    def why_not(self, path: str) -> str:
        """Return why there is no file at ``path``, where that is more than that nothing is there; else ""."""
        longest = max(len(os.fsencode(name)) for name in path.split("/"))
        if longest > LONGEST_NAME:
            return f"its name has {longest} bytes, and no file name is longer than {LONGEST_NAME}"
        place = self.root / path
        try:
            if place.is_dir():
                return "it is a folder, not a video file, and holds no numbered pictures"
            if place.is_symlink():
                return "it is a link that leads nowhere"
            started = [f"{path}{suffix}" for suffix in UNFINISHED if (self.root / f"{path}{suffix}").is_file()]
            return f"its download is not finished ({started[0]})" if started else ""
        except OSError as error:
            return f"it cannot be opened ({error.strerror})"

    def __str__(self) -> str:
        return str(self.root)


class Locator:
    """Finds videos as written, in ``videos/``, else by file name anywhere below the root.

    A name may differ in case and then in suffix (``HandStand`` and ``Handstand``; webm and mp4); class folders and
    ``train/`` prefixes may be there or not. But a folder counts where it names another class, another listed folder or
    another part of the data, and a name that occurs more than once is only found if a folder decides between them.

    Args:
        root: where the videos are.
        known: folder names that mean something (:func:`known_folders`).
    """

    def __init__(self, root: Path | Tree, known: frozenset[str] = frozenset()) -> None:
        self._tree: Tree = LocalTree(root) if isinstance(root, Path) else root
        self._known = known
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._scanned = False
        self.files: frozenset[str] = frozenset()

    def scan(self) -> None:
        """List the tree, unless that was done: ``files`` then holds every video below the root."""
        if not self._scanned:
            self._scanned = True
            self.files = frozenset(self._tree.videos())
            for path in sorted(self.files):
                self._by_stem[stem_of(plain_path(path))].append(path)

    def __call__(self, uri: str, label: str = "") -> Found:
        """Return the place of the video that a list names ``uri`` and puts into the class ``label``."""
        uri = uri.removeprefix(f"{self._tree}/")
        for candidate in (uri, f"videos/{uri}"):
            if candidate in self.files or (not self._scanned and self._tree.has(candidate)):
                return Found(candidate)
        self.scan()
        alike = self._by_stem.get(stem_of(plain_path(uri)), [])
        allowed = [path for path in alike if may_be(uri, path, self._known, label)]
        if allowed:
            return _choose(_most_alike(allowed, uri), uri, label)
        if self._tree.has(uri):  # a suffix that is no video's, or a path that leads out of the root
            return Found(uri)
        if alike:
            return Found("", f"no such file where it is listed; its name is elsewhere ({', '.join(alike[:2])})")
        if reason := self._tree.why_not(uri):
            return Found("", reason)
        return Found("", f"no such file below {self._tree}{_windows_hint(uri)}")


def _most_alike(paths: Sequence[str], uri: str) -> list[str]:
    """Return the ``paths`` whose file names are most like that of ``uri``: equal, but for case, but for suffix."""
    name, plain = _file_name(uri), plain_path(uri)
    likenesses: tuple[Callable[[str], bool], ...] = (
        lambda path: _file_name(path) == name,
        lambda path: _file_name(plain_path(path)) == _file_name(plain),
        lambda path: PurePosixPath(path).stem == PurePosixPath(name).stem,
    )
    for is_alike in likenesses:
        if found := [path for path in paths if is_alike(path)]:
            return found
    return list(paths)


def _choose(paths: list[str], uri: str, label: str) -> Found:
    """Choose among files of one name by their folders."""
    listed, plain = _folders(uri), plain_path(uri)
    preferences: tuple[Callable[[str], bool], ...] = (
        lambda path: plain_path(path).endswith(f"/{plain}"),
        lambda path: bool(listed.names) and listed.names[-1] in _folders(path).names,
        lambda path: bool(listed.parts & _folders(path).parts),
        lambda path: loosely(label) in _folders(path).names,
    )
    left = paths
    for is_preferred in preferences:
        left = [path for path in left if is_preferred(path)] or left
    if len(left) > 1:
        return Found("", f"{len(left)} files have its name, which is meant? ({', '.join(left[:2])})")
    return Found(left[0])


def _file_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def known_folders(paths: Iterable[str], classes: Iterable[str]) -> frozenset[str]:
    """Return the folder names that mean something: classes, and the folders in the listed ``paths``."""
    below = {path.rpartition("/")[0] for path in paths}
    return frozenset(loosely(name) for names in (classes, *(folder.split("/") for folder in below)) for name in names)


def may_be(listed: str, found: str, known: Collection[str], label: str = "") -> bool:
    """Return whether the folders of two paths allow that they are one video; file names are not compared.

    They do not where both name parts of the data, but unlike ones (``val/x.mp4``, ``train/x.mp4``), or where the last
    folder of ``found`` differs from that of ``listed``, is among the ``known`` ones (:func:`known_folders`), and is not
    the class ``label`` that the list gives the video.
    """
    one, other = _folders(listed), _folders(found)
    if one.parts and other.parts and not one.parts & other.parts:
        return False
    if not one.names or not other.names or one.names[-1] == other.names[-1]:
        return True
    return other.names[-1] == loosely(label) or other.names[-1] not in known


def difference(uri: str, path: str) -> str:
    """Return how a file's path differs from what its list says: suffix, case, folder, or "" for not at all.

    Below ``videos/`` counts as no difference.
    """
    if path in {uri, f"videos/{uri}"} or (uri.startswith("/") and uri.endswith(f"/{path}")):
        return ""
    listed, there = plain_path(uri), plain_path(path)
    if _file_name(listed) != _file_name(there):
        return "suffix"
    same_name = _file_name(uri) == _file_name(path)
    return "folder" if same_name and listed != there else "case"


def loosely(name: str) -> str:
    """Return a class or folder name without regard to case, underscores, and how accents are composed."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    return " ".join(name.replace("_", " ").casefold().split())


class _Folders(NamedTuple):
    names: tuple[str, ...]
    parts: frozenset[str]


def _folders(path: str) -> _Folders:
    return _folders_of(path.rpartition("/")[0])


@functools.lru_cache(maxsize=1 << 16)
def _folders_of(folder: str) -> _Folders:
    names: list[str] = []
    parts: set[str] = set()
    for name in folder.split("/"):
        if part := split_of_folder(name):
            parts.add(part)
        elif name and name.casefold() != "videos":
            names.append(loosely(name))
    return _Folders(tuple(names), frozenset(parts))


def is_windows_path(path: str) -> bool:
    """Return whether a path begins with a drive or a server of Windows; backslashes may be slashes by now."""
    return re.match(r"[A-Za-z]:[\\/]|\\\\|//", path) is not None


def _is_frame_folder(folder: Path) -> bool:
    from vlmodels.readers.picture_folder import is_picture_folder  # numpy: late

    return is_picture_folder(folder)


def _windows_hint(uri: str) -> str:
    if not is_windows_path(uri):
        return ""
    return "; it is listed by a drive or server of Windows: list it relative to --root"


def plain_path(path: str) -> str:
    """Return the path as unpackers of other systems may write it: macOS decomposes accents, Windows ignores case.

    Backslashes in names are separators that some unpackers of Windows' archives leave.
    """
    path = path.replace("\\", "/")
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def stem_of(path: str) -> str:
    """Return the file name without its suffix."""
    return _file_name(path).rsplit(".", 1)[0]
