"""Opens video files for every reader: which formats, which sizes, and files only.

FFmpeg takes a name with a colon for a protocol, and plays what a playlist names, be it another file or a network
address. Here a name is a file, always, and only demuxers of containers that hold their own pictures are open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

MAX_PIXELS = 8192 * 8192
"""Pixels of a picture; 8K video has half as many. A file of kilobytes can ask for gigabytes of decoded memory."""
DEMUXERS = (
    *("mov", "mp4", "matroska", "webm", "avi", "flv", "live_flv", "kux", "asf", "asf_o", "ogg", "rm", "wtv", "swf"),
    *("mpegts", "mpeg", "mxf", "mxf_opatom", "gxf", "dv", "nut", "ivf", "nsv", "dhav", "ipmovie", "smk", "bink"),
    *("h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "vc1", "vc1test", "m4v", "mpegvideo", "mjpeg", "dirac"),
    *("cavsvideo", "avs2", "avs3", "evc", "dnxhd", "yuv4mpegpipe", "gif", "apng"),
    *("mp3", "wav", "flac", "aac"),  # sound: so that the message says that there is no video stream
)
"""FFmpeg's names of the containers that are read. Not among them: playlists (hls, dash, concat, sdp, imf), pictures and
sequences of pictures, devices, and formats that name other files."""
CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}


def file_url(path: Path) -> str:
    """Return the name by which FFmpeg opens a file, whatever is in its name: ``10:30.mp4`` is no protocol."""
    return f"file:{path}"


def open_video(path: Path) -> Any:
    """Open a file with PyAV, as a context manager; no other protocol, no playlist, no picture larger than the limit.

    Raises:
        av.FFmpegError: it cannot be opened; ``av.ArgumentError`` if its format is not among ``DEMUXERS``.
    """
    return av.open(file_url(path), options=_codec_options(), container_options=CONTAINER_OPTIONS)


def prepare(stream: Any, threads: int) -> None:
    """Set threads and the limit of a stream that is to be decoded; a picture that outgrows it later is an error."""
    stream.codec_context.thread_count = threads
    stream.codec_context.options = _codec_options()


def _codec_options() -> dict[str, str]:
    return {"max_pixels": str(MAX_PIXELS)}
