"""Reader of chosen frames of a video file, with a clear reason where a file cannot be read.

It uses decord where seeking can skip frames and where we found decord's frames equal to those of a plain decode, and
PyAV everywhere else; PyAV alone is enough. decord refuses some files that PyAV reads (AV1, GIF). It returns wrong
frames *without an error* from transport and program streams, WMV, HEVC, edit lists, and most codecs that reorder
frames. For dense frames it is no faster, at 1080p slower. A broken video raises ``VideoError``; a decoder that hangs
or crashes needs a process around it, as ``pipelines.ingestion.isolation`` has.
"""

# Shapes: P chosen frame, H W pixel row and column of the upright picture.

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vlmodels.errors import UserError
from vlmodels.sampling import Indices

Frames = NDArray[np.uint8]
ChooseIndices = Callable[[int], Indices]
Transform = Callable[[Frames], Frames]

BLOCK_BYTES = 48 << 20
"""Bytes of decoded frames in one block, so that 1080p does not need gigabytes."""
LEAST_DECODED = 0.9
"""A video is broken, not short, if it has less than this fraction of the frames that its header states."""
SPARSE = 32
"""decord is faster if at least this many frames, on average, are between two wanted ones."""
CONTAINERS = {"mov", "matroska", "flv", "avi"}
"""From these decord returns the right frames if none is stored out of order, or if the codec is in ``REORDERED``."""
REORDERED = {"h264", "vp8", "vp9"}
"""Codecs that reorder frames, but that decord reads rightly from containers with presentation times (not AVI).

Both sets are from a comparison of the decoders over some 90 files; ``tests/vlmodels/test_video.py`` repeats a part.
"""


class VideoError(UserError):
    """A file that cannot be read as a video: its ``path`` and the ``cause``."""

    def __init__(self, path: str | Path, cause: str) -> None:
        super().__init__(f"{path}: {cause}")
        self.path, self.cause = str(path), cause

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return (VideoError, (self.path, self.cause))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Size as displayed (after rotation), frames per second (0.0: unknown), number of frames, and the decoder."""

    width: int
    height: int
    fps: float
    n_frames: int
    decoder: str


def read_clip(
    path: str | Path,
    indices: ChooseIndices,
    transform: Transform | None = None,
    *,
    threads: int = 1,
    sparse: int = SPARSE,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Frames, VideoInfo]:
    """Return the frames ``[P, H, W, 3]`` (uint8, RGB, upright) at ``indices(number of frames)``, and facts.

    Args:
        path: video file.
        indices: returns the wanted frame numbers, ascending, perhaps repeated.
        transform: for instance a resize; it gets blocks of frames as they are decoded, each frame once, so that the
            full-size frames are never all in memory.
        threads: threads of the decoder.
        sparse: least frames per wanted frame from which decord is used, if it reads the file rightly.
        block_bytes: size of the blocks.

    Raises:
        VideoError: the file is missing, no video, truncated or damaged.
    """
    header = _read_header(Path(path))
    job = _Job(Path(path), header, indices, transform or _unchanged, threads, block_bytes)
    can_skip = header.shown >= sparse * len(set(indices(max(1, header.shown)).tolist()))
    decord = _import_decord() if can_skip and header.decord_is_right else None
    if decord is not None:
        try:
            return _read_with_decord(decord, job)
        except Exception:  # noqa: BLE001, S110 - RuntimeError and decord's own; PyAV then finds the cause
            pass
    return _read_with_pyav(job)


def probe(path: str | Path) -> VideoInfo:
    """Return the facts of a video; it decodes the first frame only, and raises what ``read_clip`` raises."""
    header = _read_header(Path(path))
    try:
        first = next(_decode(Path(path), header, threads=1))
    except (StopIteration, av.FFmpegError) as error:
        raise VideoError(path, "none of its frames can be decoded") from error
    height, width = _upright(first, first.width, first.height).shape[:2]
    return VideoInfo(width, height, header.fps, header.shown, "pyav")


@dataclass(frozen=True, slots=True)
class _Header:
    """The facts that the container states; no frame is decoded."""

    stream: int
    frame_bytes: int
    fps: float
    promised: int  # frames that the container states; 0 if it states none
    shown: int  # packets in the file that no edit list cuts away: nearly always the number of frames
    decord_is_right: bool


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    header: _Header
    indices: ChooseIndices
    transform: Transform
    threads: int
    block_bytes: int


def _read_header(path: Path) -> _Header:
    if not path.is_file():
        raise VideoError(path, "no such file")
    try:
        with av.open(str(path)) as container:
            return _header_of(path, container)
    except av.FFmpegError as error:
        with path.open("rb") as file:
            cause = impostor(file)
        raise VideoError(path, cause or f"not a readable video ({error.strerror})") from error


def _header_of(path: Path, container: Any) -> _Header:
    cover_art = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover_art]
    if not streams:
        found = "its only picture is cover art" if container.streams.video else "it has no video stream"
        raise VideoError(path, f"not a video: {found}")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    present, discarded, seekable = _count_packets(container, stream)
    family = container.format.name.split(",")[0]
    promised = stream.frames
    if family == "mov" and stream.duration and stream.average_rate:  # an edit list shows fewer than are stored
        promised = min(promised, round(stream.duration * stream.time_base * stream.average_rate))
    if present < LEAST_DECODED * promised:
        raise VideoError(path, f"truncated: its header says {promised} frames, the file has {present}")
    everything_shown = not discarded and stream.frames in {0, present}
    return _Header(
        stream=stream.index,
        frame_bytes=stream.width * stream.height * 3,
        fps=float(stream.average_rate or Fraction(0)),
        promised=promised,
        shown=present - discarded,
        decord_is_right=(
            seekable
            and everything_shown
            and len(container.streams.video) == 1
            and family in CONTAINERS
            and _keeps_order(stream.codec_context, family)
        ),
    )


def _count_packets(container: Any, stream: Any) -> tuple[int, int, bool]:
    """Return the packets with data, those that an edit list discards, and whether decord can seek."""
    present = discarded = 0
    seekable = True
    h264 = stream.codec_context.name == "h264"
    try:
        for packet in container.demux(stream):
            present += packet.size > 0
            discarded += packet.is_discard
            if h264 and packet.is_keyframe and not _has_idr(bytes(packet)):
                seekable = False
    except av.FFmpegError:
        pass  # the file ends inside a packet: the caller compares the counts
    return present, discarded, seekable


def _has_idr(packet: bytes) -> bool:
    """Return whether an H.264 key packet has an IDR picture; with gradual refresh, which has none, decord miscounts."""
    position = 0
    while position + 5 <= len(packet):
        if packet[position + 4] & 31 == 5:
            return True
        position += 4 + int.from_bytes(packet[position : position + 4])
    return False


def _keeps_order(codec: Any, family: str) -> bool:
    depth = max((part.bits for part in codec.format.components), default=8) if codec.format else 8
    ordered = not codec.has_b_frames and codec.name != "hevc"
    return depth == 8 and (ordered or (codec.name in REORDERED and family != "avi"))


def impostor(file: BinaryIO) -> str | None:
    """Return what a file is if it is a common kind of non-video, which decoders only call invalid data; else None."""
    start = file.read(512)
    if not start:
        return "the file is empty"
    if not start.strip(b"\0"):
        return "the file holds only zeros (an unfinished download?)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return "a web page, not a video (a failed download?)"
    return None


def _import_decord() -> Any:
    """Return the decord module, or None where it is not installed."""
    try:
        import torch  # noqa: F401 - before decord: in the other order, CUDA builds of the two crash each other

        import decord  # isort: skip
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _read_with_decord(decord: Any, job: _Job) -> tuple[Frames, VideoInfo]:
    reader = decord.VideoReader(str(job.path), num_threads=job.threads)
    n_frames = job.header.shown
    if len(reader) != n_frames:
        raise RuntimeError("decord and the container disagree about the number of frames")
    wanted = job.indices(n_frames)
    unique = np.unique(wanted).tolist()
    step = max(1, job.block_bytes // job.header.frame_bytes)
    done = []
    height = width = 0
    for start in range(0, len(unique), step):
        block = reader.get_batch(unique[start : start + step]).asnumpy()
        height, width = block.shape[1:3]
        done.append(job.transform(block))
    return _in_order(done, wanted), VideoInfo(width, height, job.header.fps, n_frames, "decord")


def _read_with_pyav(job: _Job) -> tuple[Frames, VideoInfo]:
    """Decode the whole stream and keep the wanted frames, chosen for the expected number of frames.

    Packets are not always frames: if the number of frames differs, a second pass keeps the right ones.
    """
    path, header = job.path, job.header
    expected = max(1, header.shown)
    while True:
        wanted = job.indices(expected)
        keeper = _Keeper(set(wanted.tolist()), job.transform, job.block_bytes)
        stopped = ""
        try:
            for frame in _decode(path, header, job.threads):
                keeper.see(frame)
        except av.FFmpegError as error:
            stopped = f" ({error.strerror})"
        if not keeper.seen:
            raise VideoError(path, f"none of its frames can be decoded{stopped}")
        if (stopped or header.promised) and keeper.seen < LEAST_DECODED * header.shown:
            raise VideoError(path, f"damaged: {keeper.seen} of {header.shown} frames can be decoded{stopped}")
        if keeper.seen == expected:
            keeper.flush()
            info = VideoInfo(keeper.width, keeper.height, header.fps, expected, "pyav")
            return _in_order(keeper.done, wanted), info
        expected = keeper.seen


class _Keeper:
    """A counter of decoded frames that keeps the wanted ones, transformed block by block."""

    def __init__(self, wanted: set[int], transform: Transform, block_bytes: int) -> None:
        self.wanted, self.transform, self.block_bytes = wanted, transform, block_bytes
        self.seen = self.width = self.height = 0
        self.done: list[Frames] = []
        self._block: list[Frames] = []
        self._coded: tuple[int, int] | None = None

    def see(self, frame: Any) -> None:
        if self._coded is None:
            self._coded = (frame.width, frame.height)  # a stream may change its size, a clip may not
        if self.seen in self.wanted:
            picture = _upright(frame, *self._coded)
            self.height, self.width = picture.shape[:2]
            self._block.append(picture)
            if len(self._block) * picture.nbytes >= self.block_bytes:
                self.flush()
        self.seen += 1

    def flush(self) -> None:
        if self._block:
            self.done.append(self.transform(np.stack(self._block)))
            self._block = []


def _decode(path: Path, header: _Header, threads: int) -> Iterator[Any]:
    with av.open(str(path)) as container:
        stream = container.streams[header.stream]
        stream.codec_context.thread_count = threads
        yield from container.decode(stream)


def _upright(frame: Any, width: int, height: int) -> Frames:
    """Return ``[H, W, 3]`` RGB as displayed: PyAV, unlike decord, gives the rotation but does not apply it."""
    picture = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.rot90(picture, quarter_turns) if quarter_turns else picture


def _in_order(done: list[Frames], wanted: Indices) -> Frames:
    """Join blocks of the distinct wanted frames, and repeat those that are wanted more than once."""
    frames = done[0] if len(done) == 1 else np.concatenate(done)
    _, place = np.unique(wanted, return_inverse=True)
    return frames if len(frames) == len(wanted) else frames[place]


def _unchanged(frames: Frames) -> Frames:
    return frames
