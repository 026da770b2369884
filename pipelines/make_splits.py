"""Save seeded splits of your own data as lists in the published form, to be kept, shared and passed as --lists.

Examples:
  python pipelines/make_splits.py --data DATA --out LISTS
  python pipelines/make_splits.py --data DATA --out LISTS --seeds 1,2,3 --shots 2,4,8 --test-fraction 0.3

DATA is what ingest made of a folder or a CSV. Clips of one source video stay together. One split into training and
test videos, by the split seed, serves all lists; each seed draws its own K-shot lists from the training videos:
  labels.csv        train.txt       val.txt        train{seed}_few_shot_{K}.txt
  base_labels.csv   base_train.txt  base_val.txt   fs_base_s{seed}_train.txt
  novel_labels.csv                  novel_val.txt
fs_base lists have 16 shots if that is among --shots, else the most (splits.json: base_shots), and are of that K only.
splits.json says how they were made. few_shot.py, b2n.py and supervised.py train and test on the same videos with these
lists as without.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import run_script

if TYPE_CHECKING:
    from pipelines.splits import Clip

SCHEMA = 1
MARKER = "splits.json"
Lines = list[tuple[str, int]]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="make_splits.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, metavar="DIR|URI", help="folder that pipelines/ingest.py made")
    add("--out", required=True, metavar="DIR", help="where the lists go; replaced if it holds lists made here")
    add("--split-seed", type=_seed, default=1, metavar="N", help="decides what is test (default: 1)")
    add("--seeds", type=_numbers, default=(1, 2, 3), metavar="N,N", help="draws of the K-shot lists (default: 1,2,3)")
    add("--shots", type=_numbers, default=(2, 4, 8, 16), metavar="K,K", help="videos of a class (default: 2,4,8,16)")
    add("--test-fraction", type=float, default=0.3, metavar="F", help="share of a class kept for test (default: 0.3)")
    add("--fewer-shots", action="store_true", help="take what there is of classes with fewer training videos")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers like 1,2,3") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': numbers start at 1")
    return numbers


def main(argv: Sequence[str] | None = None) -> int:
    """Read the manifest, split it, write the lists."""
    args = parser().parse_args(argv)

    from pipelines.data.clipstore import ClipStore
    from pipelines.splits import clips_of
    from vlmodels.errors import UserError

    out, store = Path(args.out), ClipStore(args.data)
    if not 0 < args.test_fraction < 1:
        raise UserError(f"--test-fraction {args.test_fraction:g}: choose a share between 0 and 1")
    clips = clips_of(store.manifest)
    lists, labels, notes = make_lists(
        clips,
        store.classes,
        args.seeds,
        args.shots,
        args.test_fraction,
        split_seed=args.split_seed,
        fewer=args.fewer_shots,
    )
    facts = {
        "schema": SCHEMA,
        "data": store.name,
        "data_digest": store.digest,
        "seeds": args.seeds,
        "split_seed": args.split_seed,
        "shots": args.shots,
        "base_shots": base_shots(args.shots),
        "fewer_shots": args.fewer_shots,
        "test_fraction": args.test_fraction,
        "notes": notes,
        "lists": {name: {"videos": len(lines), "classes": len({k for _, k in lines})} for name, lines in lists.items()},
    }
    write(out, lists, labels, facts)
    for note in notes:
        print(note)
    for name, lines in lists.items():
        print(f"{name}.txt  {len(lines)} videos of {len({number for _, number in lines})} classes")
    print(f"lists   {out}")
    return 0


def make_lists(
    clips: Sequence[Clip],
    classes: Sequence[str],
    seeds: Sequence[int],
    shots: Sequence[int],
    test_fraction: float,
    *,
    split_seed: int = 1,
    fewer: bool = False,
) -> tuple[dict[str, Lines], dict[str, tuple[str, ...]], list[str]]:
    """Return the lists by name as (path, label), the classes of ``labels.csv`` and the like, and notes.

    The same functions as the protocols' own splits (``pipelines/own_splits.py``), so the same videos.

    Raises:
        UserError: classes with fewer training videos than ``shots`` (unless ``fewer``), fewer than two classes, no
            test videos.
    """
    from pipelines.own_splits import base_and_novel, few_shots, own_train_test
    from vlmodels.errors import UserError

    train, test, source, notes = own_train_test(clips, test_fraction, split_seed)
    notes = [source, *notes]
    if not train or not test:
        raise UserError(f"{len(train)} training and {len(test)} test videos: a split needs both; {'; '.join(notes)}")
    base, novel = base_and_novel(train, classes)
    everything = tuple(name for name in classes if name in {*base, *novel})
    _refuse_few(Counter(clip.label for clip in train), max(shots), fewer=fewer)
    labels = {"labels.csv": everything, "base_labels.csv": base, "novel_labels.csv": novel}
    lists = {"train": _lines(train, everything), "val": _lines(test, everything)}
    for seed in seeds:
        for k in shots:
            lists[f"train{seed}_few_shot_{k}"] = _lines(few_shots(train, k, seed, fewer=fewer), everything)
    of_base = [clip for clip in train if clip.label in set(base)]
    lists["base_train"] = _lines(of_base, base)
    for seed in seeds:
        lists[f"fs_base_s{seed}_train"] = _lines(few_shots(of_base, base_shots(shots), seed, fewer=fewer), base)
    lists |= {"base_val": _lines(test, base), "novel_val": _lines(test, novel)}
    return lists, labels, notes


def base_shots(shots: Sequence[int]) -> int:
    """Return K of the ``fs_base`` lists, whose names do not say it: 16 as published, else the largest of ``shots``."""
    return 16 if 16 in shots else max(shots)


def _refuse_few(counts: Counter[str], shots: int, *, fewer: bool) -> None:
    from vlmodels.errors import UserError

    few = sorted((count, name) for name, count in counts.items() if count < shots)
    if few and not fewer:
        told = ", ".join(f"{name} ({count})" for count, name in few[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        raise UserError(
            f"{len(few)} of {len(counts)} classes have fewer than {shots} training videos: {told}{more}; choose "
            f"--shots up to {few[0][0]}, or --fewer-shots to take what there is"
        )


def _lines(clips: Iterable[Clip], classes: Sequence[str]) -> Lines:
    from vlmodels.errors import UserError

    number = {name: i for i, name in enumerate(classes)}
    lines = [(clip.uri, number[clip.label]) for clip in clips if clip.label in number]
    odd = [uri for uri, _ in lines if uri != uri.strip() or "\n" in uri or "\r" in uri]
    if odd:
        raise UserError(
            f"the file name {odd[0]!r} starts or ends with a space or has a line break: no list can hold it"
        )
    return lines


def write(out: Path, lists: dict[str, Lines], labels: dict[str, tuple[str, ...]], facts: dict[str, Any]) -> None:
    """Put the folder of lists in place, whole.

    Raises:
        UserError: ``out`` cannot be written, or holds something else.
    """
    from pipelines.data.keptlists import labels_text, list_text, swap_in
    from vlmodels.errors import UserError

    files = {f"{name}.txt": list_text(lines) for name, lines in lists.items()}
    files |= {name: labels_text(names) for name, names in labels.items()}
    files[MARKER] = json.dumps(facts, indent=1).encode()
    try:
        swap_in(out, files, MARKER)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error


if __name__ == "__main__":
    run_script(main)
