"""Facts that a file's container states, and which readers return its right frames; no frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vlmodels.readers.avi_nulls import NullCounter
from vlmodels.readers.clip import Header, VideoError
from vlmodels.readers.container import MAX_PIXELS, open_video
from vlmodels.readers.impostor import impostor, picture

LEAST_DECODED = 0.9
"""A video is broken, not short, if it has less than this fraction of the frames, or seconds, that its header states."""
CONTAINERS = {"mov", "matroska", "flv", "avi"}
"""From these, readers that seek return the right frames if none is stored out of order.

If some are, torchcodec is right where the container has presentation times, decord for codecs in ``REORDERED`` there.
"""
REORDERED = {"h264", "vp8", "vp9"}
"""Codecs that reorder frames, but that decord reads rightly from containers with presentation times (not AVI).

Both sets are from a comparison of the readers over some 90 files: ``benchmarks/decoders.py``, which prints the files
that a reader gets wrong.
"""


@dataclass(slots=True)
class _Packets:
    """What the packets of a stream say."""

    present: int = 0  # with data
    discarded: int = 0  # by an edit list
    seekable: bool = True  # decord can seek
    end: Fraction = Fraction(0)  # seconds at which the last one of any stream ends, where that is asked for
    gap: Fraction = Fraction(0)  # seconds of the longest pause before one
    nulls: NullCounter = field(default_factory=NullCounter)


def read_header(path: Path, *, truncated: bool = False) -> Header:
    """Return the facts of a file.

    Args:
        path: the file.
        truncated: whether a file may have fewer frames than it states; ``Header.truncated`` then says so.

    Raises:
        VideoError: the file is missing, no video, truncated, or its pictures are too large.
    """
    _require_file(path)
    try:
        with open_video(path) as container:
            header = _header_of(path, container)
    except av.FFmpegError as error:
        raise VideoError(path, _why_not(path, error)) from error
    if header.truncated and not truncated:
        raise VideoError(path, header.truncated)
    return header


def _require_file(path: Path) -> None:
    try:
        found = path.is_file()
    except OSError as error:  # the name is too long, a folder may not be read
        raise VideoError(path, f"cannot be read: {error.strerror}") from error
    if not found:
        raise VideoError(path, "it is a folder, not a video" if path.is_dir() else "no such file")


def _why_not(path: Path, error: av.FFmpegError) -> str:
    try:
        with path.open("rb") as file:
            cause = impostor(file)
            file.seek(0)
            kind = picture(file)
    except OSError as unreadable:
        return f"cannot be read: {unreadable.strerror}"
    if cause:
        return cause
    if isinstance(error, av.ArgumentError):  # its demuxer is not on the list
        return f"{kind}, not a video" if kind else "not in a format that is read as video"
    return f"not a readable video ({error.strerror})"


def _header_of(path: Path, container: Any) -> Header:
    stream = _video_stream(path, container)
    check_size(path, stream.width, stream.height)
    family = container.format.name.split(",")[0]
    packets = _count_packets(container, stream, ends=family == "matroska")  # which states seconds, but no frames
    promised = stream.frames
    if family == "mov" and stream.duration and stream.average_rate:  # an edit list shows fewer than are stored
        promised = min(promised, round(stream.duration * stream.time_base * stream.average_rate))
    dropped = packets.nulls.finish(path, stream.index, promised) if family == "avi" else {}
    present = packets.present + sum(dropped.values())
    truncated = ""
    if present < LEAST_DECODED * promised:
        truncated = f"truncated: its header says {promised} frames, the file has {present}"
    seconds = Fraction(container.duration or 0, av.time_base)
    if packets.end and packets.end < LEAST_DECODED * seconds - packets.gap:  # the last picture may be shown as long
        truncated = f"truncated: its header says {float(seconds):.1f} s, the file has {float(packets.end):.1f}"
    everything_shown = not packets.discarded and not dropped and stream.frames in {0, present}
    plain = packets.seekable and everything_shown and _depth(stream.codec_context) == 8
    return Header(
        stream=stream.index,
        frame_bytes=stream.width * stream.height * 3,
        fps=float(stream.average_rate or Fraction(0)),
        promised=promised,
        shown=present - packets.discarded,
        dropped=dropped,
        right_readers=_right_readers(container, stream.codec_context, family) if plain else frozenset(),
        truncated=truncated,
    )


def _video_stream(path: Path, container: Any) -> Any:
    cover_art = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover_art]
    if not streams:
        found = "its only picture is cover art" if container.streams.video else "it has no video stream"
        raise VideoError(path, f"not a video: {found}")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse pictures of more than ``MAX_PIXELS``.

    Raises:
        VideoError: they have more.
    """
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS / 1e6
        raise VideoError(
            path, f"its pictures of {width}x{height} pixels are over the limit of {limit:.0f} million; scale it down"
        )


def _count_packets(container: Any, stream: Any, *, ends: bool) -> _Packets:
    found = _Packets()
    h264 = stream.codec_context.name == "h264"
    parameters = stream.codec_context.extradata or b""
    try:
        for packet in container.demux() if ends else container.demux(stream):
            if ends and packet.pts is not None:
                found.gap = max(found.gap, packet.pts * packet.time_base - found.end)
                found.end = max(found.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:
                continue
            if packet.size:
                found.present += 1
                found.nulls.see(packet.dts)
            found.discarded += packet.is_discard
            if h264 and packet.is_keyframe and not _can_seek_to(bytes(packet), parameters):
                found.seekable = False
    except av.FFmpegError:
        pass  # the file ends inside a packet: the caller compares the counts
    return found


def _can_seek_to(packet: bytes, parameters: bytes) -> bool:
    """Return whether an H.264 key packet has an IDR picture, and no other size than the header's ``parameters``.

    With gradual refresh, which has none, decord miscounts; a picture that outgrows the header is PyAV's to refuse.
    """
    position = 0
    while position + 5 <= len(packet):
        size = int.from_bytes(packet[position : position + 4])
        kind = packet[position + 4] & 31
        if kind == 5:
            return True
        if kind == 7 and packet[position + 4 : position + 4 + size] not in parameters:
            return False
        position += 4 + size
    return False


def _right_readers(container: Any, codec: Any, family: str) -> frozenset[str]:
    """Return the readers of a plain file (8 bits, nothing cut away) whose frames were equal to PyAV's."""
    if family not in CONTAINERS:
        return frozenset()
    one_stream = len(container.streams.video) == 1
    has_times = family != "avi"  # an AVI only counts its packets
    right = set()
    if one_stream and ((codec.name in REORDERED and has_times) or (not codec.has_b_frames and codec.name != "hevc")):
        right.add("decord")
    if has_times or not codec.has_b_frames:
        right.add("torchcodec")
    return frozenset(right)


def _depth(codec: Any) -> int:
    """Return the bits of a colour value."""
    return max((part.bits for part in codec.format.components), default=8) if codec.format else 8
