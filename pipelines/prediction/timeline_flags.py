"""The flags of timelines (``predict.py --window``), and the request that they become."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

TIMELINES = Path("timelines")


@dataclass(frozen=True, slots=True)
class TimelineRequest:
    """What timelines to make.

    Attributes:
        window: seconds of a window.
        stride: seconds from the start of one to that of the next.
        folder: where pages, JSON and CSV go.
    """

    window: float
    stride: float
    folder: Path


def add_timeline_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of timelines."""
    add = parser.add_argument_group("long videos").add_argument
    add("--window", type=float, metavar="S", help="make a timeline: look at each S seconds of the video")
    add("--stride", type=float, metavar="S", help="seconds from a window to the next (default: half a window)")
    add(
        "--timeline",
        type=Path,
        metavar="DIR",
        help=f"folder of the timeline's page, JSON and CSV (default: {TIMELINES})",
    )


def timeline_request(parser: argparse.ArgumentParser, args: argparse.Namespace) -> TimelineRequest | None:
    """Return the request, or None if no timeline is asked for; end the program if the flags do not fit together."""
    if args.window is None:
        for flag, value in (("--stride", args.stride), ("--timeline", args.timeline)):
            if value is not None:
                parser.error(f"{flag} {value} is for timelines: add --window SECONDS")
        return None
    if args.timeline is not None and (getattr(args, "out", None) or getattr(args, "embeddings", None)):
        parser.error(
            "--timeline makes pages, and --out and --embeddings rows and features of windows: ask for one of both"
        )
    stride = args.window / 2 if args.stride is None else args.stride
    for flag, value in (("--window", args.window), ("--stride", stride)):
        if not math.isfinite(value) or value <= 0:
            parser.error(f"{flag} {value:g}: choose a number of seconds above 0")
    if stride > args.window:
        parser.error(
            f"--stride {stride:g} is longer than --window {args.window:g}: the seconds between two windows would not "
            f"be looked at; choose at most {args.window:g}"
        )
    return TimelineRequest(args.window, stride, TIMELINES if args.timeline is None else args.timeline)
