"""Own splits as lists in the published form, with ``splits.json``, which says how they were made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.protocols.own_split import base_and_novel, few_shots, own_train_test
from pipelines.protocols.split import Clip
from pipelines.videos.kept_lists import labels_text, list_text, swap_in
from vlmodels.errors import UserError

SCHEMA = 1
MARKER = "splits.json"
Lines = list[tuple[str, int]]
"""Path and label of each video of a list."""


@dataclass(frozen=True, kw_only=True)
class ListsRequest:
    """Which lists to make.

    Attributes:
        seeds: draws of the K-shot lists.
        shots: numbers of videos of a class.
        test_fraction: share of each class that is test.
        split_seed: decides which videos are test.
        fewer_shots: take all videos of classes that have fewer than ``shots``.
    """

    seeds: Sequence[int] = (1, 2, 3)
    shots: Sequence[int] = (2, 4, 8, 16)
    test_fraction: float = 0.3
    split_seed: int = 1
    fewer_shots: bool = False

    @property
    def base_shots(self) -> int:
        """K of the ``fs_base`` lists, whose names do not hold it: 16 as published, else the largest of ``shots``."""
        return 16 if 16 in self.shots else max(self.shots)


@dataclass(frozen=True)
class SplitLists:
    """Lists by name, the classes of their label files by file name, and notes for the reader."""

    lists: Mapping[str, Lines]
    labels: Mapping[str, tuple[str, ...]]
    notes: Sequence[str]

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the numbers of videos and classes of each list."""
        return {
            name: {"videos": len(lines), "classes": len({label for _, label in lines})}
            for name, lines in self.lists.items()
        }


def make_lists(clips: Sequence[Clip], classes: Sequence[str], request: ListsRequest) -> SplitLists:
    """Split clips into lists of the same videos that the protocols choose (``pipelines/protocols/own_split.py``).

    Raises:
        UserError: ``test_fraction`` is not between 0 and 1, classes have too few training videos (and not
            ``fewer_shots``), fewer than two classes, no training or test videos.
    """
    if not 0 < request.test_fraction < 1:
        raise UserError(f"--test-fraction {request.test_fraction:g}: choose a share between 0 and 1")
    train, test, source, notes = own_train_test(clips, request.test_fraction, request.split_seed)
    notes = [source, *notes]
    if not train or not test:
        raise UserError(f"{len(train)} training and {len(test)} test videos: a split needs both; {'; '.join(notes)}")
    base, novel = base_and_novel(train, classes)
    used = tuple(name for name in classes if name in {*base, *novel})
    _check_shots(Counter(clip.label for clip in train), request)
    lists = {"train": _lines(train, used), "val": _lines(test, used)}
    for seed in request.seeds:
        for shots in request.shots:
            drawn = few_shots(train, shots, seed, fewer=request.fewer_shots)
            lists[f"train{seed}_few_shot_{shots}"] = _lines(drawn, used)
    of_base = [clip for clip in train if clip.label in set(base)]
    lists["base_train"] = _lines(of_base, base)
    for seed in request.seeds:
        drawn = few_shots(of_base, request.base_shots, seed, fewer=request.fewer_shots)
        lists[f"fs_base_s{seed}_train"] = _lines(drawn, base)
    lists["base_val"] = _lines(test, base)
    lists["novel_val"] = _lines(test, novel)
    labels = {"labels.csv": used, "base_labels.csv": base, "novel_labels.csv": novel}
    return SplitLists(lists, labels, notes)


def write(out: Path, made: SplitLists, request: ListsRequest, *, data: str, data_digest: str) -> None:
    """Replace the folder ``out`` by the lists, their label files and ``splits.json``, whole or not at all.

    Raises:
        UserError: ``out`` cannot be written, or holds something else.
    """
    files = {f"{name}.txt": list_text(lines) for name, lines in made.lists.items()}
    files |= {name: labels_text(names) for name, names in made.labels.items()}
    files[MARKER] = json.dumps(_to_json(made, request, data, data_digest), indent=1).encode()
    try:
        swap_in(out, files, MARKER)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error


def _to_json(made: SplitLists, request: ListsRequest, data: str, data_digest: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "data": data,
        "data_digest": data_digest,
        "seeds": request.seeds,
        "split_seed": request.split_seed,
        "shots": request.shots,
        "base_shots": request.base_shots,
        "fewer_shots": request.fewer_shots,
        "test_fraction": request.test_fraction,
        "notes": made.notes,
        "lists": made.summary(),
    }


def _check_shots(counts: Counter[str], request: ListsRequest) -> None:
    most = max(request.shots)
    few = sorted((count, name) for name, count in counts.items() if count < most)
    if few and not request.fewer_shots:
        named = ", ".join(f"{name} ({count})" for count, name in few[:10])
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        raise UserError(
            f"{len(few)} of {len(counts)} classes have fewer than {most} training videos: {named}{more}; choose "
            f"--shots up to {few[0][0]}, or --fewer-shots to take all videos of these classes"
        )


def _lines(clips: Iterable[Clip], classes: Sequence[str]) -> Lines:
    number = {name: i for i, name in enumerate(classes)}
    lines = [(clip.uri, number[clip.label]) for clip in clips if clip.label in number]
    unfit = [uri for uri, _ in lines if uri != uri.strip() or "\n" in uri or "\r" in uri]
    if unfit:
        raise UserError(
            f"the file name {unfit[0]!r} starts or ends with a space or has a line break: no list can hold it"
        )
    return lines
