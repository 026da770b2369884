"""Decode videos into memory-mapped shards, with a manifest that has a row for every video.

Examples:
  python pipelines/ingest.py --videos DIR --out DATA              # DIR/CLASS/*.mp4, DIR/train/CLASS/*.mp4 or DIR/*.mp4
  python pipelines/ingest.py --videos mine.csv --root VIDEOS --out DATA      # path,label[,group][,split]: class names
  python pipelines/ingest.py --videos cuts.csv --root VIDEOS --out DATA           # path,label,start_s,end_s: parts
  python pipelines/ingest.py --videos list.txt --labels labels.csv --root FRAMES --out DATA     # path n_frames label
  python pipelines/ingest.py --dataset hmdb51 --lists REPO --root VIDEOS --protocol b2n --out DATA  # published lists
  python pipelines/ingest.py --videos val.txt --labels labels.csv --root VIDEOS --out DATA          # any list
  python pipelines/ingest.py --videos base.txt novel.txt --labels base.csv novel.csv --out DATA
  python pipelines/ingest.py --videos mine.csv --root s3://BUCKET/videos --out s3://BUCKET/data/mine       # in a store

Two lines say first how the folder or the lists were read, and what was passed over. A folder that can be read in two
ways is refused until --layout says which. Files without a known suffix are videos if their first bytes are a video's.

Lists and their label files are kept in DATA/lists, where protocols find them. In a CSV, clips of one group (source
video) stay together in every split, and the split column holds train, val or test where you have decided that.

In a cluster whose machines share no disk, --out and the videos lie in a store: s3://, gs://, abfs://, hdfs://.

A rerun ingests only videos that are missing or changed, or whose shard is damaged; the same command completes an
interrupted ingest. A shard is read once on each machine after each change of its file; --verify reads all. Undecodable
videos are set aside in the manifest with the reason. Exit code: 0 if clips were stored; 2 with one line of error if
nothing could be stored, or if more than --max-bad of the videos were set aside (the decoded ones are then stored all
the same, and a rerun with a higher --max-bad accepts them at once).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from pipelines.ingestion.summary import summary
from pipelines.run_script import run_script
from pipelines.videos.flags import add_input_flags, inputs_from


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="ingest.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_input_flags(parser)
    add("--out", required=True, metavar="DIR|URI", help="where shards, manifest and index go")
    add("--frames", type=int, default=8, metavar="T", help="segments of a clip (default: 8)")
    add("--size", type=int, default=224, metavar="PIXELS", help="crop size to leave room for (default: 224)")
    add("--pool", type=int, default=4, metavar="N", help="frames stored of a segment, besides its centre (default: 4)")
    add("--sampling", default="segments", choices=("segments", "dense"), help="frames of a clip (default: segments)")
    add("--stride", type=int, default=16, metavar="N", help="frames between two of a dense clip (default: 16)")
    add("--reader", default="auto", metavar="NAME", help="auto, pyav, decord or torchcodec: same frames, other speed")
    add("--max-bad", type=float, default=50, metavar="PERCENT", help="videos that may be set aside (default: 50)")
    add("--retry", action="store_true", help="try videos again that an earlier run set aside")
    add("--verify", action="store_true", help="read all shards again, and make those anew that are damaged")
    add("--overwrite", action="store_true", help="start over in --out, also with other settings")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Find the videos, ingest them and print the result."""
    args = parser().parse_args(argv)

    from pipelines.ingestion.decode import DecodeSettings
    from pipelines.ingestion.destination import Destination
    from pipelines.ingestion.ingest import ingest
    from vlmodels.errors import UserError
    from vlmodels.video import require_reader

    require_reader(args.reader)
    settings = DecodeSettings(args.frames, args.size, args.pool, args.sampling, args.stride, args.reader)
    out = Destination.at(args.out)
    inputs = inputs_from(args, exclude=None if out.uri else out.folder)
    say = partial(print, flush=True)
    if inputs.understanding:
        say("\n".join(inputs.understanding.lines()))
    labels = {video.label for video in inputs.videos}
    if empty := [name for name in inputs.classes if name not in labels]:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        print(f"{len(empty)} of {len(inputs.classes)} classes have no video ({shown}): is it the right label file?")
    report = ingest(
        inputs,
        out,
        settings,
        workers=args.workers,
        time_limit=args.timeout,
        overwrite=args.overwrite,
        retry=args.retry,
        verify=args.verify,
        say=say,
    )
    print(summary(report), flush=True)
    bad = 100 * len(report.quarantined) / report.total
    if bad > args.max_bad:
        raise UserError(f"{bad:.0f} % of the videos were set aside, more than --max-bad {args.max_bad:g} %")
    return 0


if __name__ == "__main__":
    run_script(main)
