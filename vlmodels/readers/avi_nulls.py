"""Finds the null packets of AVI files: dropped frames, in whose place the last picture stays.

A chunk without data stands for each (Microsoft, "AVI RIFF File Reference"). FFmpeg skips them; they show as gaps in
the times of packets, which count frames, and at the end of a file only in its chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class NullCounter:
    """A counter of the frames that lie between the packets of an AVI's video stream."""

    def __init__(self) -> None:
        self.after: dict[int, int] = {}
        """Frames dropped after each packet, by the packet's number; -1 stands for those before the first."""
        self._packets = self._next = 0

    def see(self, dts: int | None) -> None:
        """Count a packet with data."""
        if dts is not None:
            if dts > self._next:
                self.after[self._packets - 1] = dts - self._next
            self._next = dts + 1
        self._packets += 1

    def finish(self, path: Path, stream: int, promised: int) -> dict[int, int]:
        """Return the frames dropped after each packet; none if the header promises fewer frames than these make."""
        if self._packets and self._next < promised:
            self.after[self._packets - 1] = trailing_nulls(path, stream)
        if self._packets + sum(self.after.values()) > promised:
            return {}
        return {packet: count for packet, count in self.after.items() if count}


def trailing_nulls(path: Path, stream: int) -> int:
    """Return how many of a stream's last chunks in an AVI have no data."""
    own = f"{stream:02d}".encode()
    count = 0
    with path.open("rb") as file:
        for name, size in _chunks(file):
            if name[:2] == own and name[2:] in {b"dc", b"db"}:
                count = 0 if size else count + 1
    return count


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield name and size of each chunk, also of those in lists, to the end of the file."""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name in {b"RIFF", b"LIST"}:
            file.seek(4, 1)  # the list's type; its chunks follow
        else:
            yield name, size
            file.seek(size + size % 2, 1)
