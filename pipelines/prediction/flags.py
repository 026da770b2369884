"""The command line of ``predict.py``, and the request that it becomes."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.prediction.timeline_flags import TimelineRequest, add_timeline_flags

if TYPE_CHECKING:
    from pipelines.prediction.results import Targets
    from pipelines.prediction.videos import Listing
    from pipelines.prediction.work import BatchRequest
    from vlmodels.span import Span


def predict_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    videos = "files, folders, patterns, lists (.txt, .csv), URIs (s3://...), or folders of numbered pictures"
    add("videos", nargs="+", metavar="VIDEO", help=videos)
    add("--model", required=True, metavar="URI|DIR", help="models:/NAME@ALIAS, or a run's folder")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the model's own is elsewhere")
    add("--labels", metavar='"A,B,C"|FILE', help="class names to choose from (default: the trained ones)")
    add("--threshold", type=float, metavar="P", help="least probability of an answer; below it is none of these")
    add("--topk", type=int, default=5, metavar="K", help="classes to print (default: 5)")
    add("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default: a GPU if there is one)")
    add("--start", metavar="S", help="look at the video from here on: seconds or HH:MM:SS (default: its start)")
    add("--end", metavar="S", help="and up to here (default: its end)")
    add(
        "--fps", type=float, default=0, metavar="F", help="frames per second of folders of pictures, for --start, --end"
    )
    add("--times", choices=("seconds", "frames", "ignore"), help="what a CSV's whole numbers as start and end are")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else runs/)")
    add("--json", action="store_true", help="print a JSON object for each video")
    add_timeline_flags(parser)
    many = parser.add_argument_group("many videos")
    add = many.add_argument
    add("--out", metavar="FILE|DIR", help="write a row for each video to a .csv or .parquet, or into a folder")
    add("--embeddings", metavar="DIR", help="keep L2-normalised features, for search.py")
    add("--time-limit", type=float, default=300, metavar="S", help="seconds for decoding a video (default: 300)")
    add("--workers", type=int, metavar="N", help="videos decoded at the same time (default: one on each CPU)")
    add("--retry", action="store_true", help="try videos again that have failed before")
    add("--overwrite", action="store_true", help="begin anew, whatever --out and --embeddings hold")
    return parser


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """What a command asks for.

    Attributes:
        span: the part of each video that is looked at; None for all of it.
        batch: what is to be done with each video.
        targets: where results go; None where they are printed alone.
    """

    span: Span | None
    batch: BatchRequest
    targets: Targets | None


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program if a number is out of range; needs nothing that imports slowly."""
    if args.topk < 1:
        parser.error(f"--topk {args.topk}: choose 1 or more")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold:g}: choose 0 to 1")
    if not 0 < args.time_limit < 1e6:
        parser.error(f"--time-limit {args.time_limit:g}: choose seconds above 0")
    if not 0 <= args.fps < 1e6:
        parser.error(f"--fps {args.fps:g}: choose a number of frames per second")
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers {args.workers}: choose 1 or more")


def request_of(args: argparse.Namespace, timelines: TimelineRequest | None = None) -> PredictRequest:
    """Return the request of checked flags; with windows, rows and features are those of windows.

    Raises:
        UserError: times, labels or places that are wrong.
    """
    from pipelines.prediction.scoring import ScoreRequest  # torch: late
    from pipelines.prediction.work import BatchRequest
    from pipelines.videos.class_names import read_names
    from vlmodels.predictor import span_of
    from vlmodels.span import seconds_of

    start, end = (None if text is None else seconds_of(text) for text in (args.start, args.end))
    labels = tuple(read_names(args.labels)) if args.labels is not None else None
    targets = None
    if args.out is not None or args.embeddings is not None:
        from pipelines.prediction.results import Targets  # Parquet: later still

        targets = Targets.of(args.out, args.embeddings, overwrite=args.overwrite, retry=args.retry)
    batch = BatchRequest(
        model=args.model,
        weights=args.weights,
        labels=labels,
        device=args.device,
        score=ScoreRequest(args.topk, args.threshold),
        time_limit_s=args.time_limit,
        workers=args.workers,
        windows=None if timelines is None else (timelines.window, timelines.stride),
    )
    return PredictRequest(span_of(start, end), batch, targets)


def listing_of(args: argparse.Namespace, request: PredictRequest) -> Listing:
    """Return the videos that the arguments name.

    Raises:
        UserError: see ``list_videos``.
    """
    from pipelines.prediction.videos import list_videos

    return list_videos(args.videos, span=request.span, fps=args.fps, times=args.times)


def choose_registry(args: argparse.Namespace) -> None:
    """Let MLflow, and what stands in for it, look for the model where the flags say."""
    from pipelines.planning.training_flags import tracking_uri

    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(args.mlflow, "runs")
