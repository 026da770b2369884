"""The lists that an ingest was given, kept beside what it made of them, so that protocols need no ``--lists``."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.videos.list_folder import KEPT, VideoList
from vlmodels.errors import UserError

LISTS = "lists"
"""Folder of kept lists in an ingested data set."""


def keep_lists(out: Path, lists: Sequence[VideoList], dataset: str | None) -> None:
    """Replace the lists in ``out/lists`` by byte copies of these and of their label files; by none if there are none.

    Beside them, ``lists.json`` says which data set they are of, and which label file each list counts.
    """
    place = out / LISTS
    files = {one.path.name: one.path for one in lists}
    labels = label_names(lists)
    files |= {labels[one.name]: one.labels_path for one in lists}
    content = {name: path.read_bytes() for name, path in files.items()}
    swap_in(place, content | kept_file(dataset, labels) if content else {}, KEPT)


def kept_file(dataset: str | None, labels: dict[str, str]) -> dict[str, bytes]:
    """Return ``lists.json``: the data set that lists are of, and the label file of each."""
    return {KEPT: json.dumps({"dataset": dataset, "labels": labels}, indent=1).encode()}


def label_names(lists: Sequence[VideoList]) -> dict[str, str]:
    """Return the name of each list's label file where all are in one folder: unlike files get unlike names."""
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
    """Put a folder of files in the place of the one that is there, whole; no files, no folder.

    Should that fail, what was there is there again.
    ``marker`` is the file that shows that the folder is of this kind. Another's is left alone if there are no files.

    Raises:
        UserError: the folder that is there has other files.
    """
    place = place.resolve()  # "." has no name
    there = place.exists()
    if there and not (place / marker).exists() and (place.is_file() or any(place.iterdir())):
        if not files:
            return
        raise UserError(f"{place} was not written here (no {marker}) and would be lost; move it away")
    fresh, stale = (place.with_name(f".{place.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
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
    """Return ``path label`` lines as a list has them."""
    return "".join(f"{path} {label}\n" for path, label in lines).encode()


def labels_text(classes: Sequence[str]) -> bytes:
    """Return class names as a label CSV has them."""
    return table_text(("id", "name"), enumerate(classes))


def table_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
