"""Answers as JSON: a row for each video, and the windows of its timeline."""

from __future__ import annotations

import base64
from typing import Any

from pipelines.serving.messages import Reply, SegmentReply, Timeline, Verdict, WindowReply
from vlmodels.span import MICRO

NONE = "none of these"


def row(name: str, start: float | None, end: float | None, reply: Reply, timeline: Timeline | None) -> dict[str, Any]:
    """Return the row of a video.

    Args:
        name: of the video, as its sender gave it.
        start: seconds that were asked for, or None.
        end: the same.
        reply: of a decoder.
        timeline: that was asked for, or None.
    """
    found: dict[str, Any] = {"video": name, "start": start, "end": end, **_verdict(reply.verdict)}
    found |= {"seconds": round(reply.seconds, 3), "reason": reply.reason}
    if reply.pictures:
        found["pictures"] = [_data_uri(picture) for picture in reply.pictures]
    if timeline is not None and reply.verdict is not None:
        found["timeline"] = {
            "window": timeline.window,
            "stride": timeline.stride,
            "windows": [_window(window) for window in reply.windows],
            "segments": [_segment(segment) for segment in reply.segments],
        }
    return found


def _window(window: WindowReply) -> dict[str, Any]:
    found = {"start": window.start, "end": window.end, **_verdict(window.verdict)}
    return found | ({"picture": _data_uri(window.picture)} if window.picture else {})


def _segment(segment: SegmentReply) -> dict[str, Any]:
    return {
        "start": round(segment.start, MICRO),
        "end": round(segment.end, MICRO),
        "status": segment.status,
        "label": segment.label,
        "probability": round(segment.probability, 6),
    }


def _verdict(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"status": "failed", "label": None, "probability": None, "topk": []}
    return {
        "status": "none" if verdict.none_of_these else "ok",
        "label": _label(verdict),
        "probability": round(verdict.topk[0][1], 6),
        "topk": [{"label": label, "probability": round(probability, 6)} for label, probability in verdict.topk],
    }


def _label(verdict: Verdict) -> str:
    return NONE if verdict.none_of_these else verdict.topk[0][0]


def _data_uri(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
