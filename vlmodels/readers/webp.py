"""Reads animated WebP pictures with Pillow: FFmpeg has no decoder for them."""

# Shapes: H W pixel row and column.

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vlmodels.readers.clip import ChooseIndices, Frames, Transform, VideoError, VideoInfo, in_order
from vlmodels.readers.header import check_size


def is_webp(path: Path) -> bool:
    """Return whether a file is a WebP picture, animated or not, by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except (OSError, ValueError):  # whoever reads it will say so
        return False
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def read(path: Path, indices: ChooseIndices, transform: Transform) -> tuple[Frames, VideoInfo]:
    """Return the wanted frames and the facts; frames per second are those of the mean duration.

    Raises:
        VideoError: a picture of one frame, too large, or damaged.
    """
    with _opened(path) as image:
        n_frames = getattr(image, "n_frames", 1)
        wanted = indices(n_frames)
        done, duration_ms = _decode(image, n_frames, set(wanted.tolist()), transform)
        width, height = image.size
    if n_frames == 1:
        raise VideoError(path, "a WebP picture, not a video")
    fps = 1000 * n_frames / duration_ms if duration_ms else 0.0
    return in_order(done, wanted), VideoInfo(width, height, fps, n_frames, "pillow")


def pictures_at(path: Path, numbers: Iterable[int]) -> Iterator[tuple[int, Frames]]:
    """Yield these numbers, ascending, each with its picture ``[H, W, 3]``; a number is drawn when it is needed.

    Raises:
        VideoError: the picture is too large, or damaged.
    """
    with _opened(path) as image:
        for number in numbers:
            image.seek(number)
            yield number, np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path, formats=["WEBP"]) as image:
            check_size(path, *image.size)
            yield image
    except VideoError:
        raise
    except (OSError, EOFError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(path, f"damaged: a WebP picture that cannot be decoded ({error})") from error


def _decode(image: Any, n_frames: int, kept: set[int], transform: Transform) -> tuple[list[Frames], int]:
    """Return the frames ``[1, H, W, 3]`` to keep, and the milliseconds that all frames last."""
    done = []
    duration_ms = 0
    for number in range(n_frames):  # each is drawn over the one before
        image.seek(number)
        picture = image.convert("RGB")
        duration_ms += image.info.get("duration", 0)
        if number in kept:
            done.append(transform(np.asarray(picture)[None]))
    return done, duration_ms
