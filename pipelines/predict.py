"""Name the action in videos with a trained model from the registry or from a run's folder.

Examples:
  python pipelines/predict.py clip.mp4 --model models:/msta-b2n@champion --labels "clapping,walking"
  python pipelines/predict.py clip.mp4 --model models:/msta-b2n@champion --labels labels.csv    # or '"sit, stand",walk'
  python pipelines/predict.py match.mp4 --start 3 --end 8.5 --model models:/msta-b2n@champion      # these seconds alone
  python pipelines/predict.py frames/v1 --model models:/msta-b2n@champion                # a folder of numbered pictures
  python pipelines/predict.py match.mp4 --window 4 --stride 2 --model models:/msta-b2n@champion    # a timeline: a page

  python pipelines/predict.py videos/ --model models:/msta-b2n@champion --out actions.csv         # a row for each video
  python pipelines/predict.py list.csv s3://bucket/more --model models:/msta-b2n@champion --embeddings features/

--labels is read as CSV: a name that holds commas goes between double quotes. A file is a label CSV (id,name), or has a
name on each line. Many videos run on Ray, on this machine or on the cluster of RAY_ADDRESS; the same command continues
what was cut off. Lists have a path on each line, or are CSV with the columns video and, for parts, start and end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipelines.prediction.flags import check_flags, choose_registry, listing_of, predict_parser, request_of
from pipelines.prediction.timeline_flags import timeline_request
from pipelines.run_script import run_script

if TYPE_CHECKING:
    from pipelines.prediction.flags import PredictRequest
    from pipelines.prediction.rows import Row
    from pipelines.prediction.timeline_flags import TimelineRequest
    from pipelines.prediction.videos import Listing
    from vlmodels.predictor import Predictor


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the most probable classes of every video; report broken ones and continue with the rest."""
    parser = predict_parser(__doc__)
    args = parser.parse_args(argv)
    check_flags(parser, args)
    timelines = timeline_request(parser, args)
    request = request_of(args, timelines)
    choose_registry(args)
    listing = listing_of(args, request)
    if listing.text:
        note(listing.text)

    def show(row: Row) -> None:
        print_row(row, as_json=args.json)

    if timelines is not None and request.targets is None:
        return make(listing, request, timelines, as_json=args.json)
    if request.targets is None and listing.is_handful:
        return few(listing, request, show)
    return many(listing, request, show if args.json or request.targets is None else None)


def few(listing: Listing, request: PredictRequest, show: Callable[[Row], None]) -> int:
    """Predict in this process, at once; return the exit code."""
    from pipelines.prediction.few import predict_few  # torch: late

    failed = 0
    for row in predict_few(listing, predictor_of(request), request.batch):
        failed += bool(row.reason)
        show(row)
    return 1 if failed else 0


def make(listing: Listing, request: PredictRequest, timelines: TimelineRequest, *, as_json: bool) -> int:
    """Make the timeline of each video in this process, one after the other; return the exit code."""
    from pipelines.prediction.timelines import Shared, make_timelines  # torch: late

    score = request.batch.score
    shared = Shared(request.batch.model, score.topk, score.threshold, as_json)
    return make_timelines(predictor_of(request), listing, timelines, shared)


def predictor_of(request: PredictRequest) -> Predictor:
    """Return the model that a command asks for, with its labels set."""
    from pipelines.prediction.model import choose_device  # torch: late
    from pipelines.storage.cache import local_run
    from pipelines.videos.class_names import cut_names
    from vlmodels import load

    batch = request.batch
    predictor = load(local_run(batch.model), weights=batch.weights, device=choose_device(batch.device))
    for name in cut_names(batch.labels or (), predictor.classes):
        note(f"note: '{name}' is a trained class, and its commas cut it here; put it between quotes")
    predictor.set_labels(batch.labels)
    return predictor


def many(listing: Listing, request: PredictRequest, show: Callable[[Row], None] | None) -> int:
    """Predict on Ray, keeping what is done; return the exit code."""
    from pipelines.prediction.batch import predict_many  # torch: late

    summary = predict_many(listing, request.batch, request.targets, note, show)
    for line in summary.lines:
        note(line)
    return 1 if summary.failed else 0


def print_row(row: Row, *, as_json: bool) -> None:
    """Print a row: its labels, or on stderr why there are none."""
    if row.reason:
        note(f"error: {row.lines[0]}: {row.reason}")
    if as_json:
        print(row.json_line)
    elif not row.reason:
        print("\n".join(row.lines))


def note(line: str) -> None:
    """Print a line on stderr: on stdout are results alone."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
