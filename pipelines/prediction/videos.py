"""Arguments of a command become an ordered listing of videos: files, folders, patterns, lists and addresses."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from pipelines.storage.cache import local_file
from pipelines.storage.place import is_uri, without_secrets
from pipelines.videos.file_tree import read_tree, shown
from pipelines.videos.remote import StoredVideos
from pipelines.videos.unlabelled import is_unlabelled_list, read_unlabelled
from pipelines.videos.video_files import VIDEO_SUFFIXES, may_be_video, suffix_of
from vlmodels.errors import UserError
from vlmodels.paths import is_file, is_folder, is_there
from vlmodels.readers.picture_folder import is_picture_folder
from vlmodels.span import Span, Unit, split_name

TRIED = 50
"""Rows of a list that are looked for to find out what its paths are relative to."""


class ListedVideo(NamedTuple):
    """A video to look at.

    Attributes:
        index: its place in the listing.
        video: path or URI, by which the file is opened from the folder of the command.
        span: the part of it; None for all of it.
        fps: frames per second of a folder of pictures; 0: unknown.
        reason: why it is known already that it cannot be read; "" if it is not.
    """

    index: int
    video: str
    span: Span | None = None
    fps: float = 0.0
    reason: str = ""


@dataclass
class Listing:
    """Videos in order, each once: about a hundred bytes for each.

    Attributes:
        folder: what relative paths are relative to.
        notes: what was understood, a text for each argument that is more than a file.
        repeats: number of videos that were named again, and left out.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)
    repeats: int = 0
    _names: list[str] = field(default_factory=list)
    _starts: array[float] = field(default_factory=lambda: array("d"))
    _ends: array[float] = field(default_factory=lambda: array("d"))
    _rates: array[float] = field(default_factory=lambda: array("d"))
    _frames: set[int] = field(default_factory=set)
    _reasons: dict[int, str] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> ListedVideo:
        start, end = self._starts[index], self._ends[index]
        unit: Unit = "frames" if index in self._frames else "seconds"
        span = None if start < 0 else Span(start, end, unit)
        return ListedVideo(index, self._names[index], span, self._rates[index], self._reasons.get(index, ""))

    def __iter__(self) -> Iterator[ListedVideo]:
        return map(self.__getitem__, range(len(self)))

    def add(self, video: str, span: Span | None = None, fps: float = 0.0, reason: str = "") -> None:
        """Add a video, unless it is there."""
        known = self.key(video, span) if not reason else self.key(f"{video}\n{reason}", span)
        if known in self._seen:
            self.repeats += 1
            return
        self._seen.add(known)
        if reason:
            self._reasons[len(self)] = reason
        if span is not None and span.unit == "frames":
            self._frames.add(len(self))
        self._starts.append(-1.0 if span is None else span.start)
        self._ends.append(0.0 if span is None else span.end)
        self._rates.append(fps)
        self._names.append(video)

    def key(self, video: str, span: Span | None) -> bytes:
        """Return 16 bytes that name a part of a video, however its path is written."""
        where = video if is_uri(video) else str(self.path(video))
        return hashlib.blake2b(f"{where}\n{span}".encode(errors="surrogateescape"), digest_size=16).digest()

    def path(self, video: str) -> Path:
        """Return the absolute path of a local video."""
        return path_of(self.folder, video)

    @property
    def text(self) -> str:
        """What was understood, in one line; "" if all arguments are files."""
        repeats = f"{self.repeats} named more than once" if self.repeats else ""
        said = "; ".join(filter(None, (*self.notes, repeats)))
        return f"{len(self)} videos: {said}" if said else ""


def path_of(folder: Path, video: str) -> Path:
    """Return the absolute path of a video that is named by a path below ``folder``, or by file://."""
    return Path(os.path.abspath(folder / (unquote(video[7:]) if video.startswith("file://") else video)))  # noqa: PTH100 - links stay


def list_videos(
    arguments: Sequence[str], *, span: Span | None = None, fps: float = 0.0, times: str | None = None
) -> Listing:
    """Return the videos that the arguments name.

    Args:
        arguments: files, folders of videos or of numbered pictures, patterns (``*.mp4``), lists (``.txt``, ``.csv``),
            or URIs of a file, a list or a folder.
        span: the part of each video that is named by itself, not in a list with times.
        fps: frames per second of folders of pictures.
        times: how to read columns of times that could mean two things.

    Raises:
        UserError: a folder or store cannot be read, a list has mistakes or is not there, or there is no video.
    """
    listing = Listing(Path.cwd())
    for argument in arguments:
        _take(listing, argument, span, fps, times)
    listing._seen.clear()  # noqa: SLF001 - its own; from here on nothing is added
    if not len(listing):
        raise UserError(f"no videos in {', '.join(map(shown, arguments))}" + _found_instead(listing))
    return listing


def _found_instead(listing: Listing) -> str:
    return f" ({'; '.join(listing.notes)})" if listing.notes else ""


def _take(listing: Listing, argument: str, span: Span | None, fps: float, times: str | None) -> None:
    """Add what an argument names."""
    if not argument:
        raise UserError("one of the videos is an empty name; is a variable of the shell empty?")
    path = argument if is_uri(argument) else str(listing.path(argument))
    if is_uri(argument):
        _take_uri(listing, argument, span, fps, times)
    elif is_folder(path):
        _take_folder(listing, argument, Path(path), span, fps)
    elif is_unlabelled_list(argument) and (is_file(path) or not glob.has_magic(argument)):
        _take_list(listing, argument, Path(path), span, fps, times)
    elif is_there(path) or os.path.islink(path):  # noqa: PTH114 - a name that is too long is no error here
        listing.add(argument, span, fps)
    elif (tagged := split_name(argument))[1] is not None:
        listing.add(tagged[0], tagged[1], fps)
    elif glob.has_magic(argument):
        _take_pattern(listing, argument, span, fps, times)
    else:
        listing.add(argument, span, fps)


def _take_folder(listing: Listing, given: str, folder: Path, span: Span | None, fps: float) -> None:
    before = len(listing) + listing.repeats
    tree = read_tree(folder)
    if not tree.videos and not tree.damaged and is_picture_folder(folder):
        listing.add(given, span, fps)
        return
    start = given.rstrip("/") or "/"
    for below in tree.videos:
        listing.add(f"{start}/{below}", span, fps)
    for below, reason in tree.damaged:
        listing.add(f"{start}/{below}", None, 0.0, reason)
    found = len(listing) + listing.repeats - before
    passed = ", ".join(f"{one.count} {one.kind}" for one in tree.passed_over[:4])
    listing.notes.append(f"{found} in {shown(given)}{f' (passed over: {passed})' if passed else ''}")


def _take_pattern(listing: Listing, pattern: str, span: Span | None, fps: float, times: str | None) -> None:
    before = len(listing) + listing.repeats
    passed = 0
    matches = sorted(glob.iglob(str(listing.path(pattern)), recursive=True))
    cut = len(str(listing.path(pattern))) - len(pattern) if not Path(pattern).is_absolute() else 0
    relative = not pattern.startswith(("/", "../", "file://")) and "/../" not in pattern and "./" not in pattern
    entered = [match for match in matches if is_folder(match)] if "**" not in pattern else []
    for match in matches:
        name = match[cut:] if relative else match
        if match in entered or is_picture_folder(match):
            _take(listing, name, span, fps, times)
        elif not is_folder(match) and (suffix_of(match) in VIDEO_SUFFIXES or may_be_video(suffix_of(match))):
            listing.add(name, span, fps)
        else:
            passed += not is_folder(match)
    found = len(listing) + listing.repeats - before
    listing.notes.append(f"{found} match {shown(pattern)}{f' (passed over: {passed} of other kinds)' if passed else ''}")


def _take_list(
    listing: Listing, given: str, path: Path, span: Span | None, fps: float, times: str | None, folder: str = ""
) -> None:
    if not is_file(path):
        raise UserError(f"{shown(given)}: there is no such list of videos")
    lines = read_unlabelled(path, times)  # type: ignore[arg-type]  # argparse has checked the choice
    base = folder or _base(listing, [line.path for line in lines[:TRIED]], given)
    parts = 0
    before = listing.repeats
    for line in lines:
        whole = is_uri(line.path) or line.path.startswith(("/", "file://")) or not base
        video = line.path if whole else f"{base}/{line.path}"
        parts += line.cut.span is not None
        if line.cut.problem:
            listing.add(video, None, 0.0, f"{line.cut.problem} ({line.cut.text})")
        else:
            listing.add(video, line.cut.span or span, line.fps or fps)
    again = listing.repeats - before
    said = [f"{parts} parts of videos" if parts else "", f"{again} repeated" if again else ""]
    if base:
        said.append(f"paths relative to {shown(base)}")
    details = ", ".join(filter(None, said))
    listing.notes.append(f"{len(lines)} in {shown(given)}{f' ({details})' if details else ''}")


def _base(listing: Listing, paths: Sequence[str], given: str) -> str:
    """Return the folder that a list's paths are relative to: the list's own if one is there, else the command's: ""."""
    own = os.path.dirname(given.removeprefix("file://"))  # noqa: PTH120 - "" for the command's own folder
    tried = [path for path in paths if not is_uri(path) and not path.startswith(("/", "file://"))]
    if not own or not tried:
        return ""
    beside = sum(is_there(listing.folder / own / path) for path in tried)
    here = sum(is_there(listing.folder / path) for path in tried)
    if beside and here and not any(_is_same(listing.folder / own / path, listing.folder / path) for path in tried):
        raise UserError(
            f"{shown(given)}: its paths ({shown(tried[0])}) are there both below {shown(own)} and below the current "
            "folder, and are other files; write them as absolute paths"
        )
    return "" if here and not beside else own


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _take_uri(listing: Listing, uri: str, span: Span | None, fps: float, times: str | None) -> None:
    """Add a video, the videos of a list, or those of a folder, by its URI."""
    plain = without_secrets(uri)
    query = uri[uri.index("?") :] if "?" in uri else ""
    bare = uri.removesuffix(query)
    if is_unlabelled_list(bare):
        _take_list(listing, plain, local_file(uri), span, fps, times, folder=bare.rpartition("/")[0])
    elif uri.startswith(("http://", "https://")) or (suffix_of(bare) in VIDEO_SUFFIXES and not glob.has_magic(bare)):
        listing.add(uri, span, fps)
    else:
        _take_store(listing, bare, query, span, fps)


def _take_store(listing: Listing, bare: str, query: str, span: Span | None, fps: float) -> None:
    before = len(listing) + listing.repeats
    pattern = ""
    folder = bare.rstrip("/")
    while glob.has_magic(folder):
        folder, _, last = folder.rpartition("/")
        pattern = f"{last}/{pattern}".rstrip("/")
    for below in StoredVideos.below(f"{folder}{query}").videos():
        if not pattern or fnmatch.fnmatchcase(below, pattern):
            listing.add(f"{folder}/{below}{query}", span, fps)
    found = len(listing) + listing.repeats - before
    listing.notes.append(f"{found} in {without_secrets(bare)}")
