"""The files below a folder: which are videos, and what is passed over, counted by kind.

It opens no file whose suffix is a video's, and asks for the state of links only: a second or so for some 100,000 files.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.videos.video_files import (
    ALSO_TEXT,
    HEAD,
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    is_text,
    is_unfinished,
    looks_like_video,
    may_be_video,
    suffix_of,
)
from vlmodels.errors import UserError

SYSTEM_FOLDERS = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
MISSES = 100
"""Files of an unknown suffix that are looked into without finding a video, before the rest is passed over unread."""
_SURELY_VIDEO = VIDEO_SUFFIXES - ALSO_TEXT
HIDDEN, UNFINISHED, NO_SUFFIX = "hidden", "unfinished downloads", "without suffix"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Files of one kind that are not taken as videos: how many, and the first of them."""

    kind: str
    count: int
    example: str


@dataclass(frozen=True)
class FileTree:
    """What lies below a folder.

    Attributes:
        videos: paths below it, sorted.
        damaged: paths that cannot be opened, and why (links that lead nowhere, names that are not text).
        passed_over: files that are no videos, and folders that were not entered, the most frequent kind first.
        without_videos: topmost folders that hold no video at any depth.
        frame_folders: folders that hold nothing but numbered pictures; where there are no video files,
            they are the ``videos``.
        counts: number of videos, damaged ones included, of each folder that holds some.
    """

    videos: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    without_videos: tuple[str, ...] = ()
    frame_folders: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)


def read_tree(root: Path, exclude: Path | None = None) -> FileTree:
    """List the files below ``root``, following links (data sets are often linked) but not in circles.

    Args:
        root: a folder.
        exclude: a folder to leave out.

    Raises:
        UserError: ``root`` cannot be read.
    """
    return _Walk(root, exclude).run()


def tree_of(paths: Iterable[str]) -> FileTree:
    """Return the tree of files that were listed elsewhere, in a store; their suffixes alone tell videos."""
    files = _Files()
    videos = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        suffix = suffix_of(name)
        if system := SYSTEM_FOLDERS.intersection(folder.split("/")):
            files.pass_over(f"in {min(system)}", path)
        elif suffix in VIDEO_SUFFIXES:
            videos.append(path)
        elif suffix in PICTURE_SUFFIXES:
            files.see_pictures(folder, [name])
        else:
            files.pass_over(_kind(name, suffix), path)
    folders = {folder for path in paths for folder in _above(path)}
    return _tree(videos, files, folders, take_frames=False)


@dataclass
class _Files:
    """Counts of the files that are passed over, and of numbered pictures by folder."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    pictures: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    first_picture: dict[tuple[str, str], str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def pass_over(self, kind: str, path: str, count: int = 1) -> None:
        self.counts[kind] += count
        if path < self.examples.setdefault(kind, path):
            self.examples[kind] = path

    def see_pictures(self, folder: str, names: Sequence[str]) -> None:
        """Count the pictures of a folder, and whether all of them are numbered."""
        if not names:
            return
        for suffix, number in Counter([name[name.rfind(".") :].lower() for name in names]).items():
            first = min(name for name in names if name.lower().endswith(suffix))
            self.kinds[folder][suffix] += number
            self.first_picture[folder, suffix] = min(first, self.first_picture.get((folder, suffix), first))
        numbered = sum([name[name.rfind(".") - 1].isdecimal() for name in names])
        self.pictures[folder] += numbered
        if numbered < len(names):
            self.others.add(folder)

    def pass_over_pictures(self, but: Collection[str]) -> None:
        """Count the pictures of all folders, ``but`` of those that are videos, as passed over."""
        for folder in self.kinds.keys() - set(but):
            for suffix, number in self.kinds[folder].items():
                example = "/".join(filter(None, (folder, self.first_picture[folder, suffix])))
                self.pass_over(suffix, example, number)


class _Walk:
    """A walk through the folders below a root; folders that are links come last, so that the linked folder is first."""

    def __init__(self, root: Path, exclude: Path | None) -> None:
        self.root = root
        self.left_out = os.path.realpath(exclude) if exclude is not None else None
        self.files = _Files()
        self.videos: list[str] = []
        self.folders: set[str] = set()
        self.misses: Counter[str] = Counter()

    def run(self) -> FileTree:
        seen: dict[str, str] = {}  # by real path, the folder that was read
        waiting, links = [""], list[str]()
        while waiting or links:
            below = waiting.pop() if waiting else links.pop()
            real = os.path.realpath(self.root / below)
            if real == self.left_out:
                continue
            if real in seen:
                if seen[real] and seen[real] not in _above(below):  # a circle loses nothing
                    self.files.pass_over("linked folders that were read already", f"{below}/")
                continue
            seen[real] = below
            inner = self._read_folder(below)
            waiting += (path for path, is_link in inner if not is_link)
            if linked := [path for path, is_link in inner if is_link]:
                links = sorted([*links, *linked], reverse=True)
        return _tree(self.videos, self.files, self.folders)

    def _read_folder(self, below: str) -> list[tuple[str, bool]]:
        """Take in the files of a folder; return the folders in it, each with whether it is a link."""
        try:
            with os.scandir(self.root / below) as scanned:
                entries = list(scanned)
        except OSError as error:  # lost+found and the like; a path that is too long
            if not below:
                raise UserError(f"{self.root} cannot be read: {error.strerror}") from error
            self.files.pass_over("folders that cannot be read", f"{below}/")
            return []
        self.folders.add(below)
        before = f"{below}/" if below else ""
        plain = not below or below.isascii()
        inner: list[tuple[str, bool]] = []
        pictures: list[str] = []
        for entry in entries:
            name = entry.name
            path = before + name
            suffix = name[name.rfind(".") :].lower() if plain and name[0] != "." and name.isascii() else ""
            if suffix in _SURELY_VIDEO and entry.is_file(follow_symlinks=False):
                self.videos.append(path)  # nearly all files: no other question is asked
            elif suffix in PICTURE_SUFFIXES and entry.is_file(follow_symlinks=False):
                pictures.append(name)  # or these, where frames are files
            elif self._is_folder(entry, path):
                inner.append((path, entry.is_symlink()))
        self.files.see_pictures(below, pictures)
        return inner

    def _is_folder(self, entry: os.DirEntry[str], path: str) -> bool:
        """Return whether to go into an entry; a file is added to the videos or passed over."""
        name = entry.name
        if name[0] == "." or name in SYSTEM_FOLDERS:
            self.files.pass_over(HIDDEN if name[0] == "." else f"in {name}", path)
            return False
        try:
            if entry.is_dir():
                return True
            self._take_file(entry, path)
        except OSError as error:  # a link that leads to itself, an I/O error
            self._leave_unread(
                entry, path, "a link that leads to itself" if entry.is_symlink() else str(error.strerror)
            )
        return False

    def _leave_unread(self, entry: os.DirEntry[str], path: str, reason: str) -> None:
        """Set a file aside if its name is a video's, else pass it over."""
        if suffix_of(entry.name) in VIDEO_SUFFIXES:
            self.files.damaged.append((shown(path), reason))
        else:
            self.files.pass_over("broken links" if entry.is_symlink() else "no regular files", path)

    def _take_file(self, entry: os.DirEntry[str], path: str) -> None:
        """Add a file, or a link that leads to no folder, to the videos; set it aside, or pass it over."""
        suffix = suffix_of(entry.name)
        if not entry.is_file():
            self._leave_unread(entry, path, "a link that leads nowhere" if entry.is_symlink() else "no regular file")
        elif not self._is_video(entry, suffix):
            self._leave(path, entry.name, suffix)
        elif not _is_text_name(path):
            self.files.damaged.append((shown(path), "its name is not valid UTF-8; rename it"))
        else:
            self.videos.append(path)

    def _is_video(self, entry: os.DirEntry[str], suffix: str) -> bool:
        """Return whether a file is a video: by its suffix, or if others have that suffix too, by its first bytes."""
        if suffix in VIDEO_SUFFIXES:
            return suffix not in ALSO_TEXT or not is_text(_head(entry.path))
        if is_unfinished(entry.name) or not may_be_video(suffix) or self.misses[suffix] >= MISSES:
            return False
        found = looks_like_video(_head(entry.path))
        self.misses[suffix] = 0 if found else self.misses[suffix] + 1
        return found

    def _leave(self, path: str, name: str, suffix: str) -> None:
        if suffix in PICTURE_SUFFIXES:
            self.files.see_pictures(path.rpartition("/")[0], [name])
        else:
            self.files.pass_over(_kind(name, suffix), path)


def shown(path: str) -> str:
    r"""Return a path as text: bytes that are no UTF-8 are written as ``\xff``."""
    return path if _is_text_name(path) else os.fsencode(path).decode(errors="backslashreplace")


def _is_text_name(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _head(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - Path costs more than the read
            return file.read(HEAD)
    except OSError:
        return b""


def _kind(name: str, suffix: str) -> str:
    return UNFINISHED if is_unfinished(name) else suffix or NO_SUFFIX


def _above(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the nearest first, without the root."""
    folder = path.rpartition("/")[0]
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _tree(videos: Iterable[str], files: _Files, folders: Iterable[str], *, take_frames: bool = True) -> FileTree:
    videos = sorted(videos)
    with_files = {path.rpartition("/")[0] for path in (*videos, *(path for path, _ in files.damaged))}
    frames = sorted(
        folder for folder, number in files.pictures.items() if number and folder not in files.others | with_files
    )
    taken = [] if with_files or not take_frames else [folder for folder in frames if folder and _is_text_name(folder)]
    files.pass_over_pictures(taken)
    videos += taken
    counts = Counter([path.rpartition("/")[0] for path in videos])
    counts.update(path.rpartition("/")[0] for path, _ in files.damaged)
    used = {above for folder in counts for above in (folder, *_above(folder))} | {"", *taken}
    without = [folder for folder in folders if folder not in used and folder.rpartition("/")[0] in used]
    kinds = sorted(files.counts.items(), key=lambda one: (-one[1], one[0]))
    passed = (PassedOver(kind, count, shown(files.examples[kind])) for kind, count in kinds)
    damaged = tuple(sorted(files.damaged))
    return FileTree(tuple(videos), damaged, tuple(passed), tuple(sorted(without)), tuple(frames), counts)
