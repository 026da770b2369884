"""Small pictures of a video for a page: a bounded number, evenly over its time, taken from windows as they are read."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

from vlmodels.predictor import Frames
from vlmodels.span import Span

MOST = 60
"""Pictures of a strip."""
HEIGHT = 96
"""Pixels; such a JPEG has some 4 kB, so a strip has a quarter of a megabyte."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: the second of the video that it shows, about, and a data URI."""

    seconds: float
    uri: str


@dataclass
class Strip:
    """Collects pictures that are at least ``gap`` seconds apart, and half of it from ``start`` and ``end``."""

    gap: float
    start: float
    end: float
    pictures: list[Picture] = field(default_factory=list)

    @classmethod
    def of(cls, start: float, end: float, stride: float) -> Strip:
        """Return the strip of a part of a video, whose windows begin ``stride`` seconds apart."""
        return cls(max(stride, (end - start) / MOST), start, end)

    def see(self, span: Span, frames: Frames) -> None:
        """Take the middle frame of a window's frames (V,T,H,W,3), if it is time for a picture."""
        middle = (span.start + span.end) / 2
        before = self.pictures[-1].seconds if self.pictures else self.start - self.gap / 2
        gap = self.gap * (1 - 1e-6)
        if middle - before >= gap and self.end - middle >= gap / 2:
            self.pictures.append(Picture(middle, _data_uri(frames[len(frames) // 2, frames.shape[1] // 2])))


def _data_uri(frame: Frames) -> str:
    """Return a frame (H,W,3) as a small JPEG."""
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((3 * HEIGHT, HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=72, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
