"""Save seeded splits of your own data as lists in the published form, to be kept, shared and passed as --lists.

Examples:
  python pipelines/make_splits.py --data DATA --out LISTS
  python pipelines/make_splits.py --data DATA --out LISTS --seeds 1,2,3 --shots 2,4,8 --test-fraction 0.3

DATA is what ingest made of a folder or a CSV. Clips of one source video stay together. One split into training and
test videos, by the split seed, serves all lists; each seed draws its own K-shot lists from the training videos:
  labels.csv        train.txt       val.txt        train{seed}_few_shot_{K}.txt
  base_labels.csv   base_train.txt  base_val.txt   fs_base_s{seed}_train.txt
  novel_labels.csv                  novel_val.txt
fs_base lists have 16 shots if that is among --shots, else the most (splits.json: base_shots), and no other K.
splits.json says how they were made. few_shot.py, b2n.py and supervised.py train and test on the same videos with these
lists as without.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.values import whole_numbers
from pipelines.run_script import run_script


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="make_splits.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, metavar="DIR|URI", help="folder that pipelines/ingest.py made")
    add("--out", required=True, metavar="DIR", help="where the lists go; replaced if it holds lists made here")
    add("--split-seed", type=_seed, default=1, metavar="N", help="decides which videos are test (default: 1)")
    add("--seeds", type=_from_one, default=(1, 2, 3), metavar="N,N", help="draws of the K-shot lists (default: 1,2,3)")
    add("--shots", type=_from_one, default=(2, 4, 8, 16), metavar="K,K", help="videos of a class (default: 2,4,8,16)")
    add("--test-fraction", type=float, default=0.3, metavar="F", help="share of a class kept for test (default: 0.3)")
    add("--fewer-shots", action="store_true", help="take all videos of classes with fewer training videos")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def _from_one(text: str) -> tuple[int, ...]:
    return whole_numbers(text, least=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the manifest, split it, write the lists."""
    args = parser().parse_args(argv)

    from pipelines.protocols.save import ListsRequest, make_lists, write  # numpy and pyarrow: late
    from pipelines.protocols.split import clips_of
    from pipelines.shards.clip_store import ClipStore

    request = ListsRequest(
        seeds=args.seeds,
        shots=args.shots,
        test_fraction=args.test_fraction,
        split_seed=args.split_seed,
        fewer_shots=args.fewer_shots,
    )
    out = Path(args.out)
    store = ClipStore(args.data)
    made = make_lists(clips_of(store.manifest), store.classes, request)
    write(out, made, request, data=store.name, data_digest=store.digest)
    for note in made.notes:
        print(note)
    for name, counts in made.summary().items():
        print(f"{name}.txt  {counts['videos']} videos of {counts['classes']} classes")
    print(f"lists   {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
