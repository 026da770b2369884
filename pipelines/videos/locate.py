"""Finds listed videos below a root, though releases differ in folders, prefixes, suffixes and case.

The tree is looked through once, and only if something is not where its list says (or if asked to). Names are
compared as text: a name may hold ``[``, ``#``, ``&`` or a space, and nothing here is a pattern.
"""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vlmodels.errors import UserError

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
_SPLIT_FOLDER = re.compile(r"(train|val|test)(?:ing|id|idation)?[_-]?\d*")
"""``train``, ``validation``, ``val_256``: which part of a data set, and no class."""


class Found(NamedTuple):
    """Where a listed video is below the root; or "", and why it is nowhere."""

    path: str
    reason: str = ""


class Locator:
    """Finds videos as written, in ``videos/``, else by file name anywhere below the root.

    A name may differ in case and then in suffix (``HandStand`` and ``Handstand``; webm and mp4); class folders and
    ``train/`` prefixes may be there or not. But a folder is taken at its word where it names another class, another
    listed folder or another part of the data, and a name that occurs more than once is nobody's unless a folder tells.

    Args:
        root: where the videos are.
        known: folder names that mean something (:func:`known_folders`).
    """

    def __init__(self, root: Path, known: frozenset[str] = frozenset()) -> None:
        self.root = root
        self._known = known
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._scanned = False
        self.files: frozenset[str] = frozenset()

    def scan(self) -> None:
        """Look through the tree now, if that was not done: ``files`` then holds every video below the root."""
        if not self._scanned:
            self._scanned = True
            self.files = frozenset(videos_below(self.root, strict=False))
            for path in sorted(self.files):
                self._by_stem[stem_of(plain_path(path))].append(path)

    def __call__(self, uri: str, label: str = "") -> Found:
        """Return where the video is that a list calls ``uri`` and puts into the class ``label``."""
        uri = uri.removeprefix(f"{self.root}/")
        for candidate in (uri, f"videos/{uri}"):
            if candidate in self.files or (not self._scanned and (self.root / candidate).is_file()):
                return Found(candidate)
        self.scan()
        name, plain = uri.rsplit("/", 1)[-1], plain_path(uri)
        alike = self._by_stem.get(stem_of(plain), [])
        same: tuple[Callable[[str], bool], ...] = (
            lambda path: path.rsplit("/", 1)[-1] == name,
            lambda path: plain_path(path).rsplit("/", 1)[-1] == plain.rsplit("/", 1)[-1],
            lambda path: PurePosixPath(path).stem == PurePosixPath(name).stem,
            lambda _: True,
        )
        for is_same in same:
            fitting = [path for path in alike if is_same(path) and may_be(uri, path, self._known, label)]
            if fitting:
                return self._one_of(fitting, uri, label)
        if (self.root / uri).is_file():  # a suffix that is no video's, or a path that leads out of the root
            return Found(uri)
        if alike:
            return Found("", f"no such file where it is listed; its name is elsewhere ({', '.join(alike[:2])})")
        return Found("", f"no such file below {self.root}")

    def _one_of(self, paths: list[str], uri: str, label: str) -> Found:
        if len(paths) == 1:
            return Found(paths[0])
        listed, plain = _folders(uri), plain_path(uri)
        tells: tuple[Callable[[str], bool], ...] = (
            lambda path: plain_path(path).endswith(f"/{plain}"),
            lambda path: bool(listed.names) and listed.names[-1] in _folders(path).names,
            lambda path: bool(listed.parts & _folders(path).parts),
            lambda path: loosely(label) in _folders(path).names,
        )
        left = paths
        for told in tells:
            left = [path for path in left if told(path)] or left
        if len(left) > 1:
            return Found("", f"{len(left)} files have its name, which is meant? ({', '.join(left[:2])})")
        return Found(left[0])


def known_folders(paths: Iterable[str], classes: Iterable[str]) -> frozenset[str]:
    """Return the folder names that mean something: classes, and the folders in the listed ``paths``."""
    below = {path.rpartition("/")[0] for path in paths}
    return frozenset(loosely(name) for names in (classes, *(folder.split("/") for folder in below)) for name in names)


def may_be(listed: str, found: str, known: Collection[str], label: str = "") -> bool:
    """Whether the folders of two paths allow that they are one video; file names are not compared.

    They do not where both name parts of the data and unlike ones (``val/x.mp4``, ``train/x.mp4``), or where the last
    folder of ``found`` is another than that of ``listed``, is among the ``known`` ones (:func:`known_folders`), and is
    not the class ``label`` that the list gives the video.
    """
    one, other = _folders(listed), _folders(found)
    if one.parts and other.parts and not one.parts & other.parts:
        return False
    if not one.names or not other.names or one.names[-1] == other.names[-1]:
        return True
    return other.names[-1] == loosely(label) or other.names[-1] not in known


def difference(uri: str, path: str) -> str:
    """How a file's path differs from what its list says: "" (not, or in ``videos/``), suffix, case or folder."""
    if path in {uri, f"videos/{uri}"} or (uri.startswith("/") and uri.endswith(f"/{path}")):
        return ""
    listed, there = plain_path(uri), plain_path(path)
    if listed.rsplit("/", 1)[-1] != there.rsplit("/", 1)[-1]:
        return "suffix"
    same_name = uri.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]
    return "folder" if same_name and listed != there else "case"


def loosely(name: str) -> str:
    """Return a class or folder name without regard to case and underscores."""
    return " ".join(name.replace("_", " ").casefold().split())


class _Folders(NamedTuple):
    names: tuple[str, ...]
    parts: frozenset[str]


def _folders(path: str) -> _Folders:
    return _folders_of(path.rpartition("/")[0])


@functools.lru_cache(maxsize=1 << 16)
def _folders_of(folder: str) -> _Folders:
    names, parts = [], set()
    for name in folder.split("/"):
        match = _SPLIT_FOLDER.fullmatch(name.casefold())
        if match:
            parts.add(match.group(1))
        elif name and name.casefold() != "videos":
            names.append(loosely(name))
    return _Folders(tuple(names), frozenset(parts))


def plain_path(path: str) -> str:
    """Return the path as unpackers of other systems may write it: macOS decomposes accents, Windows ignores case."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def stem_of(path: str) -> str:
    """Return the file name without its suffix."""
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def videos_below(root: Path, exclude: Path | None = None, *, strict: bool = True) -> Iterator[str]:
    """Yield posix paths of videos below ``root``; follows links (data sets are often linked), but not in circles.

    No file is looked at but links, so this takes a second or two for some 100,000 files.

    Raises:
        UserError: a file name that is not UTF-8; unless not ``strict``, then it is passed over.
    """
    left_out = exclude.resolve() if exclude is not None else None
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folder = root / below
        real = os.path.realpath(folder)
        if real in seen or (left_out is not None and Path(real) == left_out):
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except PermissionError:  # lost+found and the like
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir():
                waiting.append(path)
            elif _is_video(entry) and _is_text(entry.name, strict=strict):
                yield path


def _is_video(entry: os.DirEntry[str]) -> bool:
    _, dot, suffix = entry.name.rpartition(".")
    return f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES and entry.is_file()  # a link may lead nowhere


def _is_text(name: str, *, strict: bool) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        if strict:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise UserError(f"the file name {shown} is not valid UTF-8; rename it") from error
        return False
    return True
