"""Names what a file is if it is a common kind of non-video, which decoders only call invalid data."""

from __future__ import annotations

import re
from typing import BinaryIO

START_BYTES = 4096
"""Bytes at the start of a file that are looked at."""
PLAYLISTS = (
    (b"#extm3u", "an HLS playlist"),
    (b"ffconcat", "an FFmpeg concat list"),
    (b"v=0\r\no=", "an SDP session description"),
    (b"v=0\no=", "an SDP session description"),
    (b"[playlist]", "a PLS playlist"),
    (b"[reference]", "an ASX playlist"),
)
"""Text files that name other files to play; to follow them could read any file, or the network."""
XML_PLAYLISTS = {
    b"mpd": "a DASH manifest",
    b"smoothstreamingmedia": "a Smooth Streaming manifest",
    b"compositionplaylist": "an IMF playlist",
    b"packinglist": "an IMF packing list",
    b"assetmap": "an IMF asset map",
    b"playlist": "an XSPF playlist",
    b"smil": "a SMIL playlist",
    b"asx": "an ASX playlist",
}
"""Those in XML, by the name of the outermost element."""
_XML_ROOT = re.compile(rb"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype[^>]*>)*<(?:[\w.-]+:)?([\w.-]+)", re.DOTALL)
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")
PICTURES = (
    (b"\x89png\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"bm", "a BMP picture"),
    (b"ii*\0", "a TIFF picture"),
    (b"mm\0*", "a TIFF picture"),
)


def impostor(file: BinaryIO) -> str | None:
    """Return what a file is by its first bytes if it is no video: empty, zeros, a web page, a playlist; else None."""
    start = file.read(START_BYTES)
    if not start:
        return "the file is empty"
    if not start.strip(b"\0"):
        return "the file holds only zeros (an unfinished download?)"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):  # as Smooth Streaming's manifests are often written
        start = start.decode("utf-16", "ignore").encode()
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if (root := _XML_ROOT.match(text)) and root.group(1) in XML_PLAYLISTS:
        return f"{XML_PLAYLISTS[root.group(1)]}, not a video"
    for magic, name in PLAYLISTS:
        if text.startswith(magic):
            return f"{name}, not a video"
    if text.startswith(PAGES):
        return "a web page, not a video (a failed download?)"
    return None


def picture(file: BinaryIO) -> str | None:
    """Return which kind of picture a file is by its first bytes, or None; an animated PNG is a video by these, too."""
    start = file.read(8).lower()
    return next((name for magic, name in PICTURES if start.startswith(magic)), None)
