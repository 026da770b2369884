"""Answers as JSON: a row for each video, and the windows of its timeline."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from pipelines.serving.messages import Reply, Timeline, Verdict, WindowReply

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
            "segments": segments(reply.windows, timeline),
        }
    return found


def failed(name: str, reason: str) -> dict[str, Any]:
    """Return the row of a video that was not decoded at all."""
    return row(name, None, None, Reply(None, reason), None)


def segments(windows: Sequence[WindowReply], timeline: Timeline) -> list[dict[str, Any]]:
    """Join neighbouring windows of one label; the probability is the mean of theirs."""
    joined: list[list[WindowReply]] = []
    for window in windows:
        before = joined[-1][-1] if joined else None
        near = before is not None and window.start - before.start < 1.5 * timeline.stride
        if near and before is not None and _label(before.verdict) == _label(window.verdict):
            joined[-1].append(window)
        else:
            joined.append([window])
    return [
        {
            "start": some[0].start,
            "end": some[-1].end,
            "label": _label(some[0].verdict),
            "probability": round(sum(one.verdict.topk[0][1] for one in some) / len(some), 6),
        }
        for some in joined
    ]


def _window(window: WindowReply) -> dict[str, Any]:
    found = {"start": window.start, "end": window.end, **_verdict(window.verdict)}
    return found | ({"picture": _data_uri(window.picture)} if window.picture else {})


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
