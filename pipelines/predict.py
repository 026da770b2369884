"""Name the action in videos with a trained model from the registry or from a run's folder.

Examples:
  python pipelines/predict.py clip.mp4 --model models:/msta-b2n@champion --labels "clapping,walking"
  python pipelines/predict.py clip.mp4 --model models:/msta-b2n@champion --labels '"kick, then run",walking'
  python pipelines/predict.py clip.mp4 --model models:/msta-b2n@champion --labels labels.csv

  python pipelines/predict.py match.mp4 --start 3 --end 8.5 --model models:/msta-b2n@champion      # these seconds alone
  python pipelines/predict.py frames/v1 --model models:/msta-b2n@champion                # a folder of numbered pictures
  python pipelines/predict.py match.mp4 --window 4 --stride 2 --model models:/msta-b2n@champion    # a timeline: a page

--labels is read as CSV: a name that holds commas goes between double quotes. A file is a label CSV (id,name), or has a
name on each line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.prediction.timeline_flags import add_timeline_flags, timeline_request
from pipelines.run_script import run_script


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="video files, or folders of numbered pictures")
    add("--model", required=True, metavar="URI|DIR", help="models:/NAME@ALIAS, or a run's folder")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the model's own is elsewhere")
    add("--labels", metavar='"A,B,C"|FILE', help="class names to choose from (default: the trained ones)")
    add("--start", metavar="S", help="look at the video from here on: seconds or HH:MM:SS (default: its start)")
    add("--end", metavar="S", help="and up to here (default: its end)")
    add(
        "--fps", type=float, default=0, metavar="F", help="frames per second of folders of pictures, for --start, --end"
    )
    add("--topk", type=int, default=5, metavar="K", help="classes to print (default: 5)")
    add("--threshold", type=float, metavar="P", help="least probability of an answer; below it is none of these")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else runs/)")
    add("--json", action="store_true", help="print a JSON object for each video")
    add_timeline_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the most probable classes of every video; report a broken video and continue with the rest."""
    command_line = parser()
    args = command_line.parse_args(argv)
    if args.topk < 1:
        command_line.error(f"--topk {args.topk}: choose 1 or more")
    timelines = timeline_request(command_line, args)

    from pipelines.storage.cache import local_run  # torch: late
    from pipelines.storage.place import is_uri
    from pipelines.videos.class_names import cut_names, read_names
    from vlmodels import load
    from vlmodels.errors import UserError
    from vlmodels.predictor import span_of
    from vlmodels.span import seconds_of

    if stored := next((video for video in args.videos if is_uri(video)), None):
        raise UserError(f"{stored}: videos to predict have to be local; copy it to this machine first")
    start, end = (None if text is None else seconds_of(text) for text in (args.start, args.end))
    span = span_of(start, end)
    labels = read_names(args.labels) if args.labels is not None else None
    os.environ["MLFLOW_TRACKING_URI"] = registry_uri(args.mlflow, args.model)
    predictor = load(local_run(args.model), weights=args.weights)
    for name in cut_names(labels or (), predictor.classes):
        print(f"note: '{name}' is a trained class, and its commas cut it here; put it between quotes", file=sys.stderr)
    if timelines:
        from pipelines.prediction.timelines import Shared, make_timelines

        predictor.set_labels(labels)
        shared = Shared(args.model, args.topk, args.threshold, span, args.fps, args.json)
        return make_timelines(predictor, args.videos, timelines, shared)
    failed = 0
    for video in args.videos:
        try:
            found = predictor(Path(video), labels, args.topk, start=start, end=end, fps=args.fps)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        if args.json:
            times = {} if span is None else {"start": start, "end": end}
            scores = {p.label: round(p.probability, 6) for p in found}
            print(json.dumps({"video": video, **times, "predictions": scores}))
        else:
            print(span.after(video) if span else video)
            print("\n".join(f"  {100 * p.probability:5.1f} %  {p.label}" for p in found))
    return 1 if failed else 0


def registry_uri(given: str | None, model: str) -> str:
    """Return the tracking URI to look for ``model`` in.

    Raises:
        UserError: a registered model is asked for, and the SQLite file of the registry is not there.
    """
    from pipelines.planning.training_flags import tracking_uri
    from vlmodels.errors import UserError

    uri = tracking_uri(given, "runs")
    store = Path(uri.removeprefix("sqlite:///"))
    if model.startswith("models:/") and uri.startswith("sqlite:///") and not store.is_file():
        raise UserError(f"there is no MLflow store {store}; name the one that has the model with --mlflow URI")
    return uri


if __name__ == "__main__":
    run_script(main)
