"""Lists that ``ingest`` keeps with the data, so that protocols need no ``--lists``; and texts of lists and labels."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.videos.list_folder import KEPT, KeptIndex, VideoList
from pipelines.videos.time_columns import Times
from vlmodels.errors import UserError
from vlmodels.paths import absolute

LISTS = "lists"
"""Folder of kept lists in an ingested data set."""


def keep_lists(out: Path, lists: Sequence[VideoList], dataset: str | None, times: Times | None = None) -> None:
    """Replace ``out/lists`` by byte copies of these lists and of their label files; without lists, remove it.

    ``lists.json`` in the same folder names the data set, the label file of each list, and how their times are read.
    """
    place = out / LISTS
    files = {one.path.name: one.path for one in lists}
    labels = label_names(lists)
    files |= {labels[one.name]: one.labels_path for one in lists}
    content = {name: path.read_bytes() for name, path in files.items()}
    swap_in(place, content | kept_file(dataset, labels, times) if content else {}, KEPT)


def kept_file(dataset: str | None, labels: dict[str, str], times: Times | None = None) -> dict[str, bytes]:
    """Return ``lists.json`` by its name: the data set of the lists, the label file of each, how times are read."""
    return {KEPT: KeptIndex(dataset, labels, times).to_bytes()}


def label_names(lists: Sequence[VideoList]) -> dict[str, str]:
    """Return the name of each list's label file in a common folder, where different files have different names."""
    taken = {one.path.name: one.path.resolve() for one in lists}
    named: dict[str, str] = {}
    for one in lists:
        source, number = one.labels_path.resolve(), 1
        name = source.name
        while taken.setdefault(name, source) != source:
            number += 1
            name = f"{source.stem}_{number}{source.suffix}"
        named[one.name] = name
    return named


def swap_in(place: Path, files: dict[str, bytes], marker: str) -> None:
    """Replace the folder ``place`` by one of these files, whole or not at all; without files, remove it.

    ``marker`` is the file that shows that a folder was written here. Without files, any other folder stays as it is.

    Raises:
        UserError: there is a folder of other files.
        OSError: the files cannot be written; the old folder is back in its place.
    """
    place = absolute(place)  # "." has no name
    there = place.exists()
    if there and not (place / marker).exists() and (place.is_file() or any(place.iterdir())):
        if not files:
            return
        raise UserError(f"{place} was not written here (no {marker}) and would be lost; move it away")
    fresh = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    stale = place.with_name(f".{place.name}.{os.getpid()}.old")
    try:
        if files:
            fresh.mkdir(parents=True)
            for name, data in files.items():
                (fresh / name).write_bytes(data)
        if there:
            place.rename(stale)
        try:
            if files:
                fresh.rename(place)
        except BaseException:
            if there:
                stale.rename(place)
            raise
        shutil.rmtree(stale, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def list_text(lines: Iterable[tuple[str, int]]) -> bytes:
    """Return the content of a list of ``path label`` lines."""
    return "".join(f"{path} {label}\n" for path, label in lines).encode()


def labels_text(classes: Sequence[str]) -> bytes:
    """Return the content of a label CSV."""
    return table_text(("id", "name"), enumerate(classes))


def table_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return the content of a CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
