"""Reader of chosen frames of a video file or frame folder, with a clear reason where it cannot be read.

PyAV reads every file, and alone is enough. torchcodec and decord are used where they are installed, where seeking can
skip frames, and where we found their frames equal to those of a plain decode: of some files they return wrong frames
*without an error* (``vlmodels.readers.header``). For dense frames they are hardly faster, and only a decode of the
whole file finds all damage. A broken video raises ``VideoError``; a decoder that hangs or crashes needs a process
around it, as ``pipelines.ingestion.isolation`` has.
"""

# Shapes: P chosen frame, H W pixel row and column of the upright picture.

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np

from vlmodels.errors import UserError, nearest
from vlmodels.readers import decord_reader, picture_folder, pyav_reader, torchcodec_reader, webp
from vlmodels.readers.clip import ChooseIndices, ClipJob, Frames, Header, Transform, VideoError, VideoInfo
from vlmodels.readers.header import read_header
from vlmodels.readers.impostor import impostor

__all__ = [
    "Frames",
    "Reader",
    "VideoError",
    "VideoInfo",
    "choose_readers",
    "impostor",
    "probe",
    "read_clip",
    "require_reader",
]

Reader = Literal["auto", "pyav", "decord", "torchcodec"]

BLOCK_BYTES = 48 << 20
"""Bytes of decoded frames in one block, so that 1080p does not need gigabytes."""
SPARSE = 32
"""Seeking is faster if at least this many frames, on average, are between two wanted ones."""
SEEKING: dict[str, Any] = {"decord": decord_reader, "torchcodec": torchcodec_reader}
"""Readers that seek, each a module with ``load`` and ``read``."""
AUTOMATIC: tuple[Reader, ...] = ("torchcodec", "decord")
"""Those that "auto" uses, the best first by ``benchmarks/decoders.py``: torchcodec is faster than decord, takes less
memory, and is right about more files (HEVC, AV1, B-frames)."""


def read_clip(
    path: str | Path,
    indices: ChooseIndices,
    transform: Transform | None = None,
    *,
    reader: Reader = "auto",
    threads: int = 1,
    sparse: int = SPARSE,
    block_bytes: int = BLOCK_BYTES,
    fps: float = 0.0,
) -> tuple[Frames, VideoInfo]:
    """Return the frames ``[P, H, W, 3]`` (uint8, RGB, upright) at ``indices(number of frames)``, and facts.

    Args:
        path: video file, or a folder of numbered pictures.
        indices: returns the wanted frame numbers, ascending, perhaps repeated.
        transform: for instance a resize; it gets blocks of frames as they are decoded, each frame once, so that the
            full-size frames are never all in memory.
        reader: the one to use for files that it reads rightly; the frames are the same with each.
        threads: threads of the decoder.
        sparse: least frames per wanted frame from which "auto" uses another reader than PyAV.
        block_bytes: size of the blocks.
        fps: frames per second of a folder of pictures.

    Raises:
        VideoError: the file is missing, no video, truncated or damaged, or its pictures are too large.
        UserError: the reader is not installed.
    """
    path = Path(path)
    if webp.is_webp(path):
        return webp.read(path, indices, transform or _unchanged)
    if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error here
        return picture_folder.read(path, indices, transform or _unchanged, fps)
    header = read_header(path)
    job = ClipJob(path, header, indices, transform or _unchanged, threads, block_bytes)
    choices = choose_readers(reader, header, lambda: len(set(indices(max(1, header.shown)).tolist())), sparse)
    return read_with(job, choices)


def choose_readers(reader: Reader, header: Header, count: Callable[[], int], sparse: int = SPARSE) -> Sequence[Reader]:
    """Return the readers to try before PyAV, for ``count()`` wanted frames.

    Raises:
        UserError: the reader is not installed.
    """
    if reader == "auto":
        return AUTOMATIC if header.shown >= sparse * count() else ()
    require_reader(reader)
    return (reader,)


def read_with(
    job: ClipJob, choices: Sequence[Reader], otherwise: Callable[[ClipJob], tuple[Frames, VideoInfo]] = pyav_reader.read
) -> tuple[Frames, VideoInfo]:
    """Read with the first choice that is installed and right for the file; with PyAV (``otherwise``) if it fails."""
    for name in choices:
        module = SEEKING.get(name)
        if module is None or name not in job.header.right_readers:
            continue
        library = module.load()
        if library is None:
            continue
        try:
            result: tuple[Frames, VideoInfo] = module.read(library, job)
        except Exception:  # noqa: BLE001 - RuntimeError and the readers' own; PyAV then finds the cause
            break
        return result
    return otherwise(job)


def require_reader(reader: Reader) -> None:
    """Check that a reader is installed.

    Raises:
        UserError: it is not, or there is no such reader.
    """
    if reader not in get_args(Reader):
        raise UserError(f"reader {reader}: choose {', '.join(get_args(Reader))}{nearest(reader, get_args(Reader))}")
    if reader in SEEKING and SEEKING[reader].load() is None:
        raise UserError(f"reader {reader} is not installed: {SEEKING[reader].INSTALL}, or use another reader")


def probe(path: str | Path) -> VideoInfo:
    """Return the facts of a video; it decodes the first frame only, and raises what ``read_clip`` raises."""
    path = Path(path)
    if webp.is_webp(path):
        return webp.read(path, lambda _: np.zeros(1, np.int64), _unchanged)[1]
    if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no error here
        return picture_folder.read(path, lambda _: np.zeros(1, np.int64), _unchanged)[1]
    header = read_header(path)
    try:
        first = next(pyav_reader.decode(path, header, threads=1))
    except (StopIteration, av.FFmpegError) as error:
        raise VideoError(path, pyav_reader.why_none(header)) from error
    height, width = pyav_reader.upright(first, first.width, first.height).shape[:2]
    return VideoInfo(width, height, header.fps, header.shown, "pyav")


def _unchanged(frames: Frames) -> Frames:
    return frames
