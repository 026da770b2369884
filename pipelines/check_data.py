"""Check a data set before anything trains: which videos are present, renamed, missing, corrupt or in no list.

Examples:
  python pipelines/check_data.py --dataset hmdb51 --lists REPO --root VIDEOS --out CHECK
  python pipelines/check_data.py --videos val.txt --labels labels.csv --root VIDEOS --decode
  python pipelines/check_data.py --videos DIR
  python pipelines/check_data.py --videos mine.csv --root s3://BUCKET/videos --out CHECK        # in a store

Two lines say first how the folder or the lists were read, and what was passed over, as ingest does (--layout chooses
where a folder can be read in two ways). Files are found as ingest finds them (renamed: in another folder, with another
suffix or case) and their first bytes are read, which shows empty files and failed downloads; --decode decodes every
video as ingest would, and fetches those in a store for it, one after another, without keeping them. CHECK/check.json
has every video that is not simply present; CHECK/lists has the lists without the missing and corrupt videos, with their
label files, for --lists (one CSV for own data with groups, so that these are kept). Exit code: 0 if every listed video
is there and whole, 1 if some are missing or corrupt, 2 with one line of error for a mistake.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipelines.ingestion.presence_report import CheckRun, summary, write
from pipelines.run_script import run_script
from pipelines.videos.flags import add_input_flags, inputs_from, local_only


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="check_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_input_flags(parser)
    add = parser.add_argument
    add("--out", metavar="DIR", help="where check.json and the filtered lists go (default: nothing is written)")
    add("--decode", action="store_true", help="decode every video (default: read the first bytes)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Find the videos, check them and print the result."""
    args = parser().parse_args(argv)

    from pipelines.ingestion.presence import check, first_bytes, undecodable
    from pipelines.videos.caveats import find_caveats
    from pipelines.videos.list_folder import ListFolder

    started = time.monotonic()
    local_only(args, "out")
    out = Path(args.out) if args.out else None
    inputs = inputs_from(args, exclude=out, scan=True)
    say = partial(print, flush=True)
    if inputs.understanding:
        say("\n".join(inputs.understanding.lines()))
    broken = first_bytes(inputs, say=say)
    if args.decode:
        broken |= undecodable(inputs, known=broken, workers=args.workers, time_limit=args.timeout, say=say)
    presence = check(inputs, broken=broken)
    folder = ListFolder.open(args.lists, args.dataset) if args.lists else None
    notes = find_caveats(inputs, folder, args.protocol)
    seconds = time.monotonic() - started
    print(summary(presence, notes), flush=True)
    if out is not None:
        write(out, inputs, presence, CheckRun(args.decode, seconds, notes))
        print(f"report  {out / 'check.json'}")
        if (out / "lists").is_dir():
            print(f"lists   {out / 'lists'}")
    how = "decoded" if args.decode else "not decoded (--decode does)"
    print(f"{how}; {seconds:.1f} s")
    return 0 if presence.complete else 1


if __name__ == "__main__":
    run_script(main)
