"""Reads a folder of numbered pictures as a video, with Pillow; it opens the wanted pictures only."""

# Shapes: H W pixel row and column.

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmodels.readers.clip import ChooseIndices, Frames, Transform, VideoError, VideoInfo, in_order

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff"))
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF")
DECODER = "pictures"
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture: its file's name, number, and bytes."""

    name: str
    number: int
    size: int
    mtime_ns: int


def is_picture_folder(path: str | Path) -> bool:
    """Return whether a path is a folder with numbered pictures in it."""
    try:
        with os.scandir(path) as entries:
            return any(_number(entry.name) is not None for entry in entries)
    except (OSError, ValueError):
        return False


def list_pictures(path: str | Path) -> list[PictureFile]:
    """Return the pictures of a folder in the order of their numbers (2 before 10); optical flow is left out.

    Raises:
        VideoError: the folder cannot be read, holds no numbered picture, two series, a number twice, a gap, or an empty
            picture.
    """
    series: dict[str, list[PictureFile]] = defaultdict(list)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if (found := _number(entry.name)) is not None:
                    stat = entry.stat()
                    series[found[0]].append(PictureFile(entry.name, found[1], stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise VideoError(path, f"cannot be read: {error.strerror}") from error
    if len(series) > 1:
        series = {prefix: found for prefix, found in series.items() if not prefix.lower().startswith("flow")} or series
    if not series:
        raise VideoError(path, "it is a folder, not a video, and holds no numbered pictures")
    if len(series) > 1:
        names = ", ".join(sorted(found[0].name for found in series.values())[:3])
        raise VideoError(path, f"{len(series)} series of pictures in one folder ({names}); keep one")
    (pictures,) = series.values()
    pictures.sort(key=lambda picture: picture.number)
    _check_numbers(path, pictures)
    return pictures


def _number(name: str) -> tuple[str, int] | None:
    """Return what is before the number of a picture's name, and the number; None if it is no numbered picture."""
    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix.lower()}" not in SUFFIXES or name[0] == "." or not stem[-1:].isdecimal() or not stem.isascii():
        return None
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2][-18:])) if match else None


def _check_numbers(path: str | Path, pictures: list[PictureFile]) -> None:
    step = pictures[1].number - pictures[0].number if len(pictures) > 2 else 1
    for before, after in itertools.pairwise(pictures):
        if before.number == after.number:
            raise VideoError(path, f"two pictures have the number {after.number} ({before.name}, {after.name})")
        if after.number - before.number not in {1, step} or (len(pictures) == 2 and after.number - before.number > 1):
            raise VideoError(path, f"a gap in its pictures: none is between {before.name} and {after.name}")
    if empty := next((picture for picture in pictures if not picture.size), None):
        raise VideoError(path, f"its picture {empty.name} is empty")


def state_of(path: str | Path) -> tuple[int, int]:
    """Return the bytes of a folder's pictures, and the time of its last change (ns), which show whether it changed.

    Raises:
        VideoError: see ``list_pictures``.
        OSError: it cannot be read.
    """
    pictures = list_pictures(path)
    changed = max(os.stat(path).st_mtime_ns, *(picture.mtime_ns for picture in pictures))  # noqa: PTH116
    return sum(picture.size for picture in pictures), changed


def fingerprint(path: str | Path) -> str:
    """Return a SHA-256 of the names and sizes of all pictures, and of the bytes of the middle one: all cost too long.

    Raises:
        VideoError: see ``list_pictures``.
        OSError: the picture cannot be read.
    """
    pictures = list_pictures(path)
    digest = hashlib.sha256(repr([(picture.name, picture.size) for picture in pictures]).encode())
    digest.update(Path(path, pictures[len(pictures) // 2].name).read_bytes())
    return digest.hexdigest()


def read(path: Path, indices: ChooseIndices, transform: Transform, fps: float = 0.0) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts; ``fps`` is what the user says.

    Raises:
        VideoError: see ``list_pictures``; a wanted picture cannot be read, has another size than the others, is too
            large, or has more than 8 bits a colour.
    """
    pictures = list_pictures(path)
    wanted = indices(len(pictures))
    done = []
    for _, picture in pictures_at(path, pictures, np.unique(wanted).tolist()):
        height, width = picture.shape[:2]
        done.append(transform(picture[None]))
    return in_order(done, wanted), VideoInfo(width, height, fps, len(pictures), DECODER)


def pictures_at(path: Path, pictures: Sequence[PictureFile], numbers: Iterable[int]) -> Iterator[tuple[int, Frames]]:
    """Yield these numbers, each with its picture ``[H, W, 3]``; a number is drawn when it is needed.

    Raises:
        VideoError: a picture cannot be read, has another size than the first, is too large, or has more than 8 bits a
            colour.
    """
    first: tuple[int, ...] | None = None
    for number in numbers:
        picture = _read_picture(path, pictures[number].name)
        first = picture.shape if first is None else first
        if picture.shape != first:
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (first, picture.shape))
            raise VideoError(path, f"its pictures have different sizes: {sizes} ({pictures[number].name})")
        yield number, picture


def _read_picture(path: Path, name: str) -> Frames:
    """Return a picture ``[H, W, 3]``, upright."""
    from PIL import Image, ImageOps

    from vlmodels.readers.header import check_size  # PyAV: late

    try:
        with Image.open(path / name, formats=FORMATS) as image:
            check_size(path, *image.size)
            deep = image.mode.startswith(("I", "F"))
            picture = np.array(ImageOps.exif_transpose(image).convert("RGB"))  # a copy, which torch may use
    except VideoError:
        raise
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cause = "is not there" if isinstance(error, FileNotFoundError) else "is damaged"
        raise VideoError(path, f"its picture {name} {cause}") from error
    if deep:
        raise VideoError(path, f"its picture {name} has more than 8 bits a colour")
    return picture
