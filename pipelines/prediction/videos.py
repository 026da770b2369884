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
from urllib.parse import unquote

from pipelines.storage.cache import local_file
from pipelines.storage.place import is_uri, without_secrets, without_signature
from pipelines.videos.file_tree import read_tree, shown
from pipelines.videos.remote import StoredVideos
from pipelines.videos.unlabelled import Times, is_unlabelled_list, read_unlabelled
from pipelines.videos.video_files import VIDEO_SUFFIXES, may_be_video, suffix_of
from vlmodels.errors import UserError
from vlmodels.paths import is_file, is_folder, is_there
from vlmodels.readers.picture_folder import is_picture_folder
from vlmodels.span import Span, Unit, split_name

HANDFUL = 16
"""Local videos that one process predicts sooner than Ray starts."""
TRIED = 50
"""Rows of a list that are looked for to find out what its paths are relative to."""


@dataclass(frozen=True, slots=True)
class ListedVideo:
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

    @property
    def name(self) -> str:
        """Its name in results: a URI is not to let anybody in who reads them."""
        return without_signature(self.video)


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
        known = self.key(video, span, reason)
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

    @property
    def is_handful(self) -> bool:
        """Whether these are few local videos."""
        return len(self) <= HANDFUL and not any(map(is_uri, self._names))

    @property
    def taken(self) -> int:
        """Number of videos that were named, those named again among them."""
        return len(self) + self.repeats

    def close(self) -> None:
        """Forget what is needed to add more."""
        self._seen.clear()

    def failures(self) -> list[int]:
        """Return the places of the videos of which it is known that they cannot be read."""
        return list(self._reasons)

    def key(self, video: str, span: Span | None, reason: str = "") -> bytes:
        """Return 16 bytes that name a part of a video, however its path is written, or what is wrong with it."""
        where = video if is_uri(video) else str(self.path(video))
        named = "\n".join((where, str(span), *filter(None, [reason])))
        return hashlib.blake2b(named.encode(errors="surrogateescape"), digest_size=16).digest()

    def key_of(self, index: int) -> bytes:
        """Return the key of the video at a place."""
        one = self[index]
        return self.key(one.video, one.span, one.reason)

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
    arguments: Sequence[str], *, span: Span | None = None, fps: float = 0.0, times: Times | None = None
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
    taking = _Taking(listing, span, fps, times)
    for argument in arguments:
        taking.take(argument)
    listing.close()
    if not len(listing):
        found = f" ({'; '.join(listing.notes)})" if listing.notes else ""
        raise UserError(f"no videos in {', '.join(map(shown, arguments))}{found}")
    return listing


@dataclass(frozen=True, slots=True)
class _Taking:
    """Adds the videos that arguments name to a listing; the other attributes are those of ``list_videos``."""

    listing: Listing
    span: Span | None
    fps: float
    times: Times | None

    def take(self, argument: str) -> None:
        """Add what an argument names.

        Raises:
            UserError: as ``list_videos``.
        """
        if not argument:
            raise UserError("one of the videos is an empty name; is a variable of the shell empty?")
        if is_uri(argument):
            self._take_uri(argument)
            return
        path = self.listing.path(argument)
        if is_folder(path):
            self._take_folder(argument, path)
        elif is_unlabelled_list(argument) and (is_file(path) or not glob.has_magic(argument)):
            self._take_list(argument, path, self._base(argument))
        elif is_there(path) or os.path.islink(path):  # noqa: PTH114 - a name that is too long is no error here
            self._add(argument)
        elif (tagged := split_name(argument))[1] is not None:
            self.listing.add(tagged[0], tagged[1], self.fps)
        elif glob.has_magic(argument):
            self._take_pattern(argument)
        else:
            self._add(argument)

    def _add(self, video: str) -> None:
        self.listing.add(video, self.span, self.fps)

    def _take_folder(self, given: str, folder: Path) -> None:
        before = self.listing.taken
        tree = read_tree(folder)
        if not tree.videos and not tree.damaged and is_picture_folder(folder):
            self._add(given)
            return
        start = given.rstrip("/") or "/"
        percent = "%25" if given.startswith("file://") else "%"
        for below in tree.videos:
            self._add(f"{start}/{below.replace('%', percent)}")
        for below, reason in tree.damaged:
            self.listing.add(f"{start}/{below}", None, 0.0, reason)
        passed = ", ".join(f"{one.count} {one.kind}" for one in tree.passed_over[:4])
        self._note(before, f"in {shown(given)}", passed)

    def _take_pattern(self, pattern: str) -> None:
        before = self.listing.taken
        passed = 0
        local = unquote(pattern[7:]) if pattern.startswith("file://") else pattern
        for match in sorted(glob.iglob(local, root_dir=self.listing.folder, recursive=True)):  # noqa: PTH207 - as typed
            path = self.listing.path(match)
            suffix = suffix_of(match)
            if is_picture_folder(path) or (is_folder(path) and "**" not in pattern):
                self.take(match)
            elif not is_folder(path) and (suffix in VIDEO_SUFFIXES or may_be_video(suffix)):
                self._add(match)
            else:
                passed += not is_folder(path)
        self._note(before, f"match {shown(pattern)}", f"{passed} of other kinds" if passed else "")

    def _take_list(self, given: str, path: Path, base: str | None) -> None:
        if not is_file(path):
            raise UserError(f"{shown(given)}: there is no such list of videos")
        lines = read_unlabelled(path, self.times)
        if base is None or not _is_certain(self.listing.folder, base, [line.path for line in lines[:TRIED]], given):
            base = ""
        before, parts = self.listing.taken, 0
        for line in lines:
            video = f"{base}/{line.path}" if base and _is_relative(line.path) else line.path
            parts += line.cut.span is not None
            if line.cut.problem:
                self.listing.add(video, None, 0.0, f"{line.cut.problem} ({line.cut.text})")
            else:
                self.listing.add(video, line.cut.span or self.span, line.fps or self.fps)
        details = [f"{parts} parts of videos" if parts else "", f"paths relative to {shown(base)}" if base else ""]
        self._note(before, f"in {shown(given)}", ", ".join(filter(None, details)), "")

    @staticmethod
    def _base(given: str) -> str | None:
        """Return the folder of a list as it is written; None if that is the current one."""
        return os.path.dirname(given.removeprefix("file://")) or None  # noqa: PTH120 - "" for the current one

    def _take_uri(self, uri: str) -> None:
        """Add a video, the videos of a list, or those of a folder."""
        plain, query = without_secrets(uri), f"?{uri.partition('?')[2]}" if "?" in uri else ""
        bare = uri.removesuffix(query)
        if is_unlabelled_list(bare):
            self._take_list(plain, local_file(uri), bare.rpartition("/")[0])
        elif uri.startswith(("http://", "https://")) or (
            suffix_of(bare) in VIDEO_SUFFIXES and not glob.has_magic(bare)
        ):
            self._add(uri)
        else:
            self._take_store(bare, query)

    def _take_store(self, bare: str, query: str) -> None:
        before, pattern, folder = self.listing.taken, "", bare.rstrip("/")
        while glob.has_magic(folder):
            folder, _, last = folder.rpartition("/")
            pattern = f"{last}/{pattern}".rstrip("/")
        for below in StoredVideos.below(f"{folder}{query}").videos():
            if not pattern or fnmatch.fnmatchcase(below, pattern):
                self._add(f"{folder}/{below}{query}")
        self._note(before, f"in {without_secrets(bare)}")

    def _note(self, before: int, where: str, details: str = "", what: str = "passed over: ") -> None:
        self.listing.notes.append(f"{self.listing.taken - before} {where}{f' ({what}{details})' if details else ''}")


def _is_relative(path: str) -> bool:
    return not is_uri(path) and not path.startswith(("/", "file://"))


def _is_certain(folder: Path, base: str, paths: Sequence[str], given: str) -> bool:
    """Return whether a list's paths are relative to its own folder ``base``, and not to the current one.

    Raises:
        UserError: they could be both, and are other files.
    """
    tried = [path for path in paths if _is_relative(path)]
    if is_uri(base) or not tried:
        return True
    beside = [path for path in tried if is_there(folder / base / path)]
    here = [path for path in tried if is_there(folder / path)]
    for path in set(beside) & set(here):
        if os.path.realpath(folder / base / path) != os.path.realpath(folder / path):
            raise UserError(
                f"{shown(given)}: {shown(path)} is there both below {shown(base)} and below the current folder, and "
                "is another file; write absolute paths"
            )
    return bool(beside) or not here
