"""Which lists of a folder train, test or are ingested: by the data set, else by the names that lists usually have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipelines.videos.list_folder import ListFolder
from vlmodels.errors import UserError

TRAIN_LISTS = ("train", "train1", "training")
NUMBERED_TEST_LISTS = ("val1", "val2", "val3")
SINGLE_TEST_LISTS = ("val", "validation", "test")
TEST_LISTS = (*NUMBERED_TEST_LISTS, *SINGLE_TEST_LISTS)

_OST = "_filtered_OST"
"""Ending of the names of OST's lists, which are ViFi-CLIP's without folder names."""


def present(folder: ListFolder, names: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are lists of the folder."""
    return tuple(name for name in names if folder.has(name))


def list_to_train(folder: ListFolder) -> str | None:
    """Return the name of the list to train on: the data set's, else the first of the usual names; None if absent."""
    published = (folder.dataset.train,) if folder.dataset else ()
    return next(iter(present(folder, (*published, *TRAIN_LISTS))), None)


def lists_to_test(folder: ListFolder) -> tuple[str, ...]:
    """Return the names of the lists to test on: the data set's, else val1 to val3, else the first of the usual names.

    They need not be there: reading an absent list says which one is missing.
    """
    if folder.dataset is not None:
        found = [name if folder.has(name) else f"{name}{_OST}" for name in folder.dataset.tests]
        return tuple(found) if any(map(folder.has, found)) else folder.dataset.tests
    numbered = present(folder, NUMBERED_TEST_LISTS)
    return numbered or present(folder, SINGLE_TEST_LISTS)[:1] or SINGLE_TEST_LISTS[:1]


def wanted_lists(folder: ListFolder, protocol: str | None) -> tuple[list[str], list[str]]:
    """Return the lists that a protocol needs and that are there, and those that are not there.

    None stands for all lists; other text files there (a README) are ignored.

    Raises:
        UserError: none is there.
    """
    data, names = folder.dataset, folder.names()
    known = [*data.counts, data.train, *(["base_train"] if "base" in data.part_labels else [])] if data else names
    is_needed = _need(folder, names, protocol)
    wanted = [name for name in dict.fromkeys([*names, *known]) if is_needed(name)]
    there = [name for name in wanted if name in names]
    if not there:
        raise UserError(_nothing_wanted(folder, wanted, names))
    return there, [name for name in wanted if name not in names]


def _need(folder: ListFolder, names: Sequence[str], protocol: str | None) -> Callable[[str], bool]:
    """Return whether the protocol needs a list, by its name."""
    data = folder.dataset
    tests = data.tests if data else tuple(name for name in TEST_LISTS if name in names)
    trains = (data.train,) if data else TRAIN_LISTS
    copies = {name for name in names if "_filtered" in name and name.split("_filtered")[0] in names}  # the same videos
    needs: Mapping[str | None, Callable[[str], bool]] = {
        None: lambda name: name not in copies and (name not in names or folder.is_list(name)),
        "b2n": lambda name: name.startswith("fs_base_") or name in {"base_val", "novel_val"},
        "few_shot": lambda name: "_few_shot_" in name or name in tests[:1],
        "zero_shot": lambda name: name in tests,
        "supervised": lambda name: name in trains or name in tests[:1],
    }
    return needs[protocol]


def _nothing_wanted(folder: ListFolder, wanted: Sequence[str], names: Sequence[str]) -> str:
    looked_for = ", ".join(wanted) or "val1.txt, train.csv, fs_base_s1_train.txt and the like"
    remedy = "pass a published repository or its folder of lists"
    if not folder.dataset:
        remedy = "own lists are 'path label' lines, CSV or JSON; --dataset NAME says whose published lists these are"
    found = f"; found {', '.join(names)}" if names else ""
    return f"{folder.place}: none of the lists that are needed is here ({looked_for}); {remedy}{found}"
