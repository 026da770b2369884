"""Rows of lists that name a part of a video, or a frame folder with its number of frames: their files, and notes.

Published files may be cut already, and say so by their names: ``ID_000010_000020.mp4`` holds the seconds 10 to 20 of a
longer video. Such a file is taken whole where its list names these times; it must not be cut again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.videos.locate import Found, stem_of
from pipelines.videos.time_columns import Cut
from pipelines.videos.understanding import count
from vlmodels.errors import UserError
from vlmodels.span import Span

_CUT_NAME = re.compile(r".*_(\d{6})_(\d{6})")
_YOUTUBE_ID = re.compile(r"[\w-]{11}", re.ASCII)
Locate = Callable[[str, str], Found]


@dataclass(frozen=True, slots=True)
class ListedPart:
    """What a row says besides path and label.

    Attributes:
        file: the video, as listed.
        cut: the part of it.
        n_frames: number of frames; 0 if it does not say.
    """

    file: str
    cut: Cut
    n_frames: int = 0


@dataclass(frozen=True, slots=True)
class FoundPart:
    """The path of a part's file below the root ("" if it was not found), why it cannot be used, and what to cut.

    ``count_note`` says that a frame folder has another number of pictures than its list says.
    """

    path: str
    reason: str
    span: Span | None
    count_note: str = ""


def find_part(part: ListedPart, label: str, locate: Locate, root: Path | None) -> FoundPart:
    """Return the file of a part, and the span to cut from it: none if the file is cut already.

    Args:
        part: what the list says.
        label: class of the clip.
        locate: finds videos by name and class.
        root: the folder that paths are relative to; None for a store.
    """
    span = part.cut.span
    path, reason = locate(part.file, label)
    if path and _other_id(part.file, path):
        path, reason = "", "no such file; names of YouTube differ in case"
    if not path and span is not None and span.unit == "seconds":
        name = f"{_without_suffix(part.file)}_{span.start:06.0f}_{span.end:06.0f}"
        path, other = locate(name, label)
        if path and stem_of(path) != stem_of(name):
            path = ""
        reason = reason if not path else other
    if part.n_frames and path and root is not None and (root / path).is_dir():
        reason, note = _count_reason(root / path, part.n_frames)
        return FoundPart(path, reason, span, f"{path}: {note}" if note else "")
    if part.cut.problem or not path or span is None:
        return FoundPart(path, part.cut.problem or reason, span)
    return _unless_cut(path, span)


def _unless_cut(path: str, span: Span) -> FoundPart:
    """Return what to cut from a file, by what its name says that it holds."""
    match = _CUT_NAME.fullmatch(stem_of(path)) if span.unit == "seconds" else None
    if match is None:
        return FoundPart(path, "", span)
    start, end = int(match[1]), int(match[2])
    if abs(span.start - start) < 1 and abs(span.end - end) < 1:
        return FoundPart(path, "", None)
    if span.end <= end - start and not start <= span.start < span.end <= end:
        return FoundPart(path, "", span)
    return FoundPart(
        path,
        f"times and name disagree: by its name the file holds {start}-{end} s of a longer video, its list says "
        f"{span.text}; are these counted from the file's start? Then rename the file",
        span,
    )


def _other_id(listed: str, path: str) -> bool:
    """Return whether a video of YouTube was found under the name of another, which differs in case alone."""
    name = PurePosixPath(listed).name
    return _YOUTUBE_ID.fullmatch(name) is not None and stem_of(path) != name


def _without_suffix(file: str) -> str:
    name = PurePosixPath(file).name
    return file if _YOUTUBE_ID.fullmatch(name) else file.removesuffix(PurePosixPath(file).suffix)


def check_groups(sources: Iterable[tuple[str, str]]) -> None:
    """Refuse parts of one file that belong to different groups, which splits would spread over train and test.

    Args:
        sources: file and group of each part.

    Raises:
        UserError: naming the first.
    """
    groups: dict[str, str] = {}
    for file, group in sources:
        if groups.setdefault(file, group) != group:
            raise UserError(
                f"clips of {file} are in the groups '{groups[file]}' and '{group}', but come from one video: give all "
                "clips of a video one group"
            )


def part_notes(parts: Sequence[tuple[ListedPart, FoundPart]]) -> list[str]:
    """Return what was understood of the rows that name parts: how many, in which unit, and files that are cut already.

    Args:
        parts: of each such row, what it says, and what was found.
    """
    notes = []
    for unit, how in (("seconds", "seconds"), ("frames", "frames, counted from 0, the end excluded")):
        found = [one.path or part.file for part, one in parts if one.span is not None and one.span.unit == unit]
        if found:
            videos = count(len(set(found)), "video")
            notes.append(f"{count(len(found), 'clip')} cut from {videos} by times in {how} (--times)")
    if counted := sum(bool(part.n_frames) for part, _ in parts):
        notes.append(f"{count(counted, 'line')} with a number of frames before the label")
    already = [one.path for part, one in parts if one.path and part.cut.span is not None and one.span is None]
    if already:
        notes.append(f"{count(len(already), 'file')} cut already, by their names ({already[0]}), and taken whole")
    if others := [one.count_note for _, one in parts if one.count_note]:
        notes.append(f"{count(len(others), 'frame folder')} with other numbers of pictures than listed ({others[0]})")
    if wrong := [part for part, _ in parts if part.cut.problem]:
        first = wrong[0]
        notes.append(
            f"{count(len(wrong), 'row')} with wrong times ({first.cut.after(first.file)}: {first.cut.problem})"
        )
    return notes


def _count_reason(folder: Path, listed: int) -> tuple[str, str]:
    """Return why a frame folder cannot be used, and a note: it has other pictures than its list says.

    Args:
        folder: the frame folder.
        listed: number of its frames in the list.
    """
    from vlmodels.readers.clip import VideoError  # numpy: late
    from vlmodels.readers.picture_folder import list_pictures

    try:
        there = len(list_pictures(folder))
    except VideoError:
        return "", ""  # whoever decodes it says why
    if there < 0.9 * listed:
        return f"truncated: its list says {listed} frames, the folder has {there}", ""
    return "", f"its list says {listed} frames, the folder has {there}" if there != listed else ""
