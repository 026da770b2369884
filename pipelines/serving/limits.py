"""Limits of a server, and the refusals that name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for; what is over a limit is refused with its name.

    Attributes:
        max_bytes: bytes of all videos of a request.
        max_json_bytes: bytes of a JSON body, which is held in memory.
        max_seconds: seconds of a video.
        max_pixels: pixels of its pictures.
        max_videos: videos of a request.
        max_labels: own labels of a request.
        max_windows: windows of a timeline.
        queue: requests that wait or are worked on at a time; more are answered 503.
        decode_s: seconds that decoding a video (of a timeline: 16 windows of it) may take.
        patience_s: seconds that a sender has for its headers, and before ``least_rate`` holds.
        least_rate: bytes a second that a sender must reach on average after that.
    """

    max_bytes: int = 256 * MEGABYTE
    max_json_bytes: int = 8 * MEGABYTE
    max_seconds: float = 600.0
    max_pixels: int = 4096 * 2304
    max_videos: int = 16
    max_labels: int = 400
    max_windows: int = 600
    queue: int = 32
    decode_s: float = 60.0
    patience_s: float = 10.0
    least_rate: int = 16_384

    def rules(self) -> list[tuple[bool, str]]:
        """Return what must hold, each with the message if it does not."""
        names = (
            "max_bytes",
            "max_seconds",
            "max_pixels",
            "max_videos",
            "max_labels",
            "max_windows",
            "queue",
            "decode_s",
        )
        return [
            (0 < getattr(self, name) < float("inf"), f"--{name.replace('_', '-')} {getattr(self, name)}: not above 0")
            for name in names
        ]


class RefusedError(Exception):
    """A request that is answered with a status of 4xx or 503.

    Attributes:
        status: of HTTP.
        code: a word for programs: ``too_many_bytes``.
        message: a sentence for people.
        limit: name of the limit in ``Limits`` that was passed; "" if there is none.
        value: of that limit.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        limit: str = "",
        value: float = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.limit, self.value, self.headers = limit, value, headers or {}

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.limit:
            error["limit"] = {"name": self.limit, "value": self.value}
        return {"error": error}


def too_many_bytes(most: int) -> RefusedError:
    """Return the refusal of a body over ``max_bytes``."""
    return RefusedError(
        413, "too_many_bytes", f"the videos are over the limit of {size_text(most)}", limit="max_bytes", value=most
    )


def size_text(size: int) -> str:
    """Return bytes for people: ``256 MB``."""
    return f"{size / MEGABYTE:.0f} MB" if size >= MEGABYTE else f"{size} bytes"
