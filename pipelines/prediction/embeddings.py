"""Writes features of many videos into a folder: ``embeddings.json`` says of which model, ``part-*.arrow`` hold them.

Its form, and its reader, are in ``stored_features.py``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from pipelines.prediction.rows import FAILED, OK
from pipelines.prediction.stored_features import ABOUT, BLOCK, SCHEMA
from pipelines.storage.files import write_whole
from pipelines.videos.file_tree import shown


@dataclass(frozen=True, slots=True)
class Embedding:
    """The features of a video, or why there are none.

    Attributes:
        video: path or URI as given.
        start: seconds; None for the video's start.
        end: seconds; None for its end.
        feature: (E,), L2-normalised; None if it failed.
        reason: why it failed.
    """

    video: str
    start: float | None = None
    end: float | None = None
    feature: NDArray[np.float32] | None = None
    reason: str = ""


_FACTS = (
    pa.field("video", pa.string(), nullable=False),
    pa.field("start", pa.float64()),
    pa.field("end", pa.float64()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
)


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a part."""
    return folder / f"part-{number:06d}.arrow"


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``embeddings.json``.

    Raises:
        OSError: it cannot be written.
    """
    content = {"schema": SCHEMA, **about, "dtype": "float32", "normalised": True}
    write_whole(folder / ABOUT, lambda path: path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_part(folder: Path, number: int, rows: Sequence[Embedding], dim: int) -> None:
    """Write a part, whole or not at all.

    Args:
        folder: the folder.
        number: of the part.
        rows: videos, at least one.
        dim: E.

    Raises:
        OSError: it cannot be written.
    """
    feature = pa.list_(pa.float32(), dim)
    columns = [
        pa.array([shown(row.video) for row in rows], pa.string()),
        pa.array([row.start for row in rows], pa.float64()),
        pa.array([row.end for row in rows], pa.float64()),
        pa.array([FAILED if row.feature is None else OK for row in rows], pa.string()),
        pa.array([shown(row.reason) for row in rows], pa.string()),
        pa.array([row.feature for row in rows], feature),
    ]
    _write(part_path(folder, number), pa.Table.from_arrays(columns, schema=pa.schema([*_FACTS, ("feature", feature)])))


def _write(path: Path, table: pa.Table) -> None:
    def write(place: Path) -> None:
        with ipc.new_file(place, table.schema) as part:
            part.write_table(table, max_chunksize=BLOCK)

    write_whole(path, write)


def last_part(folder: Path) -> int:
    """Return the number of the last part; -1 if there is none."""
    return max((int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.arrow")), default=-1)


def remove_parts(folder: Path, but: Collection[int]) -> None:
    """Remove the parts whose numbers are not among ``but``: a kill came before their videos counted as done."""
    kept = {part_path(folder, number) for number in but}
    for path in folder.glob("part-*.arrow"):
        if path not in kept:
            path.unlink()


def remove_rows(folder: Path, number: int, gone: Collection[tuple[str, float | None, float | None]]) -> None:
    """Remove the rows of some (video, start, end) from a part, if it is there."""
    path = part_path(folder, number)
    if not path.is_file():
        return
    with pa.OSFile(str(path)) as file, ipc.open_file(file) as part:
        table = part.read_all()
    keys = zip(*(table[name].to_pylist() for name in ("video", "start", "end")), strict=True)
    kept = table.filter(pa.array([key not in gone for key in keys], pa.bool_()))
    _write(path, kept)
