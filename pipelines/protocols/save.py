"""Write own splits as lists in the published form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.protocols.split import Clip


SCHEMA = 1
MARKER = "splits.json"
Lines = list[tuple[str, int]]


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

    The same functions as the protocols' own splits (``pipelines/protocols/own.py``), so the same videos.

    Raises:
        UserError: classes with fewer training videos than ``shots`` (unless ``fewer``), fewer than two classes, no
            test videos.
    """
    from pipelines.protocols.own import base_and_novel, few_shots, own_train_test
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
    from pipelines.videos.kept_lists import labels_text, list_text, swap_in
    from vlmodels.errors import UserError

    files = {f"{name}.txt": list_text(lines) for name, lines in lists.items()}
    files |= {name: labels_text(names) for name, names in labels.items()}
    files[MARKER] = json.dumps(facts, indent=1).encode()
    try:
        swap_in(out, files, MARKER)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
