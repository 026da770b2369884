"""Find videos, or their seconds, that fit a text, among features that predict.py has stored.

Examples:
  python pipelines/search.py "a person opens a door" --embeddings features
  python pipelines/search.py "a dog runs" "rain" --embeddings features --topk 20 --page found.html
  python pipelines/search.py --queries queries.txt --embeddings features --csv > found.csv       # a query on each line
  python pipelines/search.py --video example.mp4 --embeddings features                           # videos like this one

Queries are free text and read as they are. Models that were trained on class names know them in a sentence, which a
note shows when a query is such a name. Texts longer than the model reads are cut, and a note says which.
Every stored feature is compared, and the score is the cosine, from -1 to 1. A video is listed once, with its best
seconds if windows of it were stored (predict.py --window); --every-window lists each window by itself.
Rows without a feature are counted, and files that are damaged are named, and the rest is searched; the exit code is
then 1. Some methods cannot be searched by text (a classifier instead of class texts); the message says what to do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.run_script import run_script


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="search.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="what to look for, each in quotes")
    add("--queries", type=Path, metavar="FILE", help="a file with a query on each line")
    add("--video", action="append", default=[], metavar="FILE", help="look for videos like this one; may be repeated")
    add("--embeddings", required=True, type=Path, metavar="DIR", help="features, from predict.py --embeddings DIR")
    add("--model", metavar="URI|DIR", help="models:/NAME@ALIAS or a run's folder (default: that of the features)")
    add("--weights", metavar="FILE", help="weight file of the backbone, where the model's own is elsewhere")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else runs/)")
    add("--topk", type=int, default=10, metavar="K", help="hits of a query (default: 10)")
    add("--every-window", action="store_true", help="list every window by itself (default: the best of each video)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object for each query")
    form.add_argument("--csv", action="store_true", help="print a CSV line for each hit")
    add("--page", type=Path, metavar="FILE", help="write a page with pictures, such as found.html")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the best hits of every query; return 1 if some of the features could not be searched."""
    command_line = parser()
    args = command_line.parse_args(argv)
    if args.topk < 1:
        command_line.error(f"--topk {args.topk}: choose 1 or more")
    if not (args.texts or args.queries or args.video):
        command_line.error("what to look for? give a text, --queries FILE, or --video FILE")

    from pipelines.planning.training_flags import tracking_uri
    from pipelines.prediction.queries import encode_texts, encode_videos, hints, open_model, read_queries  # torch: late
    from pipelines.prediction.search import rank
    from pipelines.prediction.search_page import Query, write_search
    from pipelines.prediction.search_text import LINES, SCORE, problems, searched
    from pipelines.prediction.stored_features import open_embeddings

    texts = read_queries(args.texts, args.queries)
    embeddings = open_embeddings(args.embeddings)
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(args.mlflow, "runs")
    predictor = open_model(embeddings.identity, args.embeddings, args.model, args.weights)
    features = [encode_texts(predictor, texts)] if texts else []
    features += [encode_videos(predictor, args.video)] if args.video else []
    for note in hints(predictor, texts):
        print(f"note: {note}", file=sys.stderr)

    import numpy as np

    ranking = rank(embeddings, np.concatenate(features), args.topk, every_window=args.every_window)
    queries = [Query(text) for text in texts] + [Query(f"like {video}", video) for video in args.video]
    form = "json" if args.json else "csv" if args.csv else "text"
    for line in LINES[form](queries, ranking):
        print(line)
    warnings = list(problems(embeddings, ranking))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    summary = searched(embeddings, ranking, every_window=args.every_window)
    print(summary, file=sys.stderr)
    if args.page:
        page = write_search(args.page, queries, ranking, summary=summary, reading=SCORE, notes=warnings)
        print(f"page  {page}", file=sys.stderr)
    return 1 if ranking.damaged or ranking.broken else 0


if __name__ == "__main__":
    run_script(main)
