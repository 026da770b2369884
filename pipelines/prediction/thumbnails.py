"""Small pictures of videos, for pages: the frame in the middle of a part, as JPEG in a ``data:`` address."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.storage.place import is_uri
from vlmodels.cuts import read_cuts
from vlmodels.errors import UserError
from vlmodels.paths import is_there
from vlmodels.readers.clip import Frames, VideoError
from vlmodels.resize import resize_cover
from vlmodels.sampling import Indices
from vlmodels.span import Span

WIDTH, HEIGHT = 240, 180
"""Pixels that a picture has at most."""
_QUALITY = 75
Place = tuple[str, float | None, float | None]
"""A video, and the seconds of its part: None for its start or end."""


def thumbnails(places: Sequence[Place], fps: float = 0.0) -> Mapping[Place, tuple[str, str]]:
    """Return for each place a picture's ``data:`` address, or "" and the reason why there is none.

    A video is opened once, and only the frames that are shown are kept; folders of pictures have the rate ``fps``.
    """
    found: dict[Place, tuple[str, str]] = {}
    for video in dict.fromkeys(place[0] for place in places):
        parts = [place for place in dict.fromkeys(places) if place[0] == video]
        found |= dict(zip(parts, _pictures(video, parts, fps), strict=True))
    return found


def _pictures(video: str, parts: Sequence[Place], fps: float) -> list[tuple[str, str]]:
    if is_uri(video):
        return [("", "in a store")] * len(parts)
    if not is_there(video):
        return [("", "no longer there")] * len(parts)
    spans = [None if start is None and end is None else Span(start or 0.0, end or math.inf) for _, start, end in parts]
    try:
        frames = read_cuts(Path(video), spans, _middle, _shrink, fps=fps)
    except VideoError as error:
        return [("", error.cause)] * len(parts)
    except (UserError, OSError) as error:
        return [("", str(error))] * len(parts)
    return [("", one.cause) if isinstance(one, VideoError) else (_address(one[0][0]), "") for one in frames]


def _middle(count: int) -> Indices:
    return np.array([count // 2], np.int64)


def _shrink(frames: Frames) -> Frames:
    height, width = frames.shape[1:3]
    scale = min(WIDTH / width, HEIGHT / height, 1)
    return resize_cover(frames, max(1, round(height * scale)), max(1, round(width * scale)))


def _address(frame: Frames) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
