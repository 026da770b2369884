"""Which files are videos: by the suffix of their name, else by their first bytes."""

from __future__ import annotations

import re

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("264", "265", "266", "3g2", "3gp", "amv", "apng", "asf", "av1", "avc", "avi", "bik", "dav"),
        *("divx", "dv", "f4v", "flv", "gif", "gxf", "h261", "h263", "h264", "h265", "hevc", "ivf", "m1v"),
        *("m2t", "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mk3d", "mkv", "mov", "mp4", "mp4v", "mpe"),
        *("mpeg", "mpg", "mpv", "mts", "mxf", "nsv", "nut", "obu", "ogm", "ogv", "qt", "rm", "rmvb"),
        *("smk", "swf", "ts", "vc1", "vob", "vvc", "webm", "wmv", "wtv", "xvid", "y4m"),
    )
)
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff"))
ALSO_TEXT = frozenset((".ts", ".mts"))
"""Suffixes of videos that programs (TypeScript) use as well."""
HEAD = 512
"""Bytes that show what a file is."""

_NO_VIDEOS = PICTURE_SUFFIXES | frozenset(
    f".{name}"
    for name in (
        *("txt", "json", "jsonl", "csv", "tsv", "xml", "yaml", "yml", "toml", "ini", "cfg", "md", "rst"),
        *("html", "htm", "log", "srt", "vtt", "ass", "sub", "nfo", "description", "pdf", "doc", "docx"),
        *("xls", "xlsx", "py", "sh", "ipynb", "mat", "npy", "npz", "pkl", "pickle", "pt", "pth", "ckpt"),
        *("h5", "hdf5", "parquet", "arrow", "db", "zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar"),
        *("md5", "sha256", "lock", "js", "css", "svg", "ico", "mp3", "wav", "aac", "flac", "m4a", "wma"),
        *("opus", "mka", "m3u", "m3u8", "mpd", "sdp", "pls", "torrent", "heic", "avif", "exif", "thm"),
        *("lnk", "url", "exe", "dll"),
    )
)
_UNFINISHED = re.compile(
    r".*\.(?:part|partial|crdownload|download|opdownload|aria2|ytdl|tmp|temp|!ut|!qb)(?:-frag\d+)?"
)
_STARTS = (
    *(b"\x1aE\xdf\xa3", b"FLV\x01", b"0&\xb2u\x8ef\xcf\x11", b"\x06\x0e+4\x02\x05", b"GIF8", b"DKIF", b".RMF"),
    *(b"YUV4MPEG2 ", b"nut/multimedia", b"\x1f\x07\x00", b"\x00\x00\x00\x00\x01\xbc"),  # y4m, nut, dv, gxf
    *(b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb0"),  # MPEG program stream, MPEG-1/2, MPEG-4
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"pnot")
_NO_VIDEO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"M4A ", b"M4B ", b"M4P ")


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; "" if it has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def is_unfinished(name: str) -> bool:
    """Return whether a browser or downloader gives unfinished files such names (``x.mp4.part``)."""
    return _UNFINISHED.fullmatch(name.lower()) is not None


def may_be_video(suffix: str) -> bool:
    """Return whether files of this suffix, which is not among ``VIDEO_SUFFIXES``, may be videos all the same."""
    return suffix not in _NO_VIDEOS


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a text."""
    return bool(head.strip()) and _CONTROL.search(head) is None


def looks_like_video(head: bytes) -> bool:
    """Return whether the first ``HEAD`` bytes of a file are those of a video's container or stream."""
    if head.startswith(_STARTS):
        return True
    if head[4:8] in _BOXES:
        return head[8:12] not in _NO_VIDEO_BRANDS
    if head.startswith(b"RIFF"):
        return head[8:12] == b"AVI " or (head[8:16] == b"WEBPVP8X" and bool(head[20] & 2))  # 2: animated
    if head.startswith(b"OggS"):
        return b"theora" in head[:64] or b"\x01video" in head[:64]
    return _is_transport_stream(head) or _is_elementary_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    """Return whether every packet of 188 bytes begins with 0x47; in cameras' files 4 bytes are before each packet."""
    starts = (head[0:HEAD:188], head[4:HEAD:192])
    return any(len(marks) > 2 and not marks.strip(b"G") for marks in starts)


def _is_elementary_stream(head: bytes) -> bool:
    """Return whether this begins with a parameter set of H.264, or with one of HEVC."""
    at = head[:4].find(b"\x00\x00\x01")
    if at not in {0, 1} or head[:at].strip(b"\x00") or len(head) < at + 5:
        return False
    first, second = head[at + 3], head[at + 4]
    is_avc = not first & 0x80 and first & 0x1F in {7, 9}
    return is_avc or (first in {0x40, 0x42, 0x46} and second == 1)
