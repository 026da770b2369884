"""Features of many videos in a folder: ``embeddings.json`` says of which model, ``part-*.parquet`` hold them.

A row of a part is a video, or a part of one: ``video``, ``start`` and ``end`` (seconds, or null), ``status`` ("ok" or
"failed"), ``reason``, and ``feature``, a list of E float32, L2-normalised, or null. (Of a fixed size, Arrow would write
lists that it cannot read: "Expected all lists to be of size=128 but index 3 had size=0".)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pyarrow import parquet

from pipelines.prediction.rows import FAILED, OK
from pipelines.storage.files import write_whole
from pipelines.videos.file_tree import shown
from vlmodels.errors import UserError

ABOUT = "embeddings.json"
SCHEMA = 1


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


COLUMNS = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        ("start", pa.float64()),
        ("end", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        ("reason", pa.string()),
        ("feature", pa.list_(pa.float32())),
    ]
)


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a part."""
    return folder / f"part-{number:06d}.parquet"


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``embeddings.json``.

    Raises:
        OSError: it cannot be written.
    """
    content = {"schema": SCHEMA, **about, "dtype": "float32", "normalised": True}
    write_whole(folder / ABOUT, lambda path: path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_part(folder: Path, number: int, rows: Sequence[Embedding]) -> None:
    """Write a part, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    columns = [
        pa.array([shown(row.video) for row in rows], pa.string()),
        pa.array([row.start for row in rows], pa.float64()),
        pa.array([row.end for row in rows], pa.float64()),
        pa.array([FAILED if row.feature is None else OK for row in rows], pa.string()),
        pa.array([shown(row.reason) for row in rows], pa.string()),
        pa.array([None if row.feature is None else row.feature.astype(np.float32) for row in rows], COLUMNS[-1].type),
    ]
    table = pa.Table.from_arrays(columns, schema=COLUMNS)
    write_whole(part_path(folder, number), lambda path: parquet.write_table(table, path, compression="zstd"))


def remove_parts(folder: Path, but: Collection[int]) -> None:
    """Remove the parts whose numbers are not among ``but``: a kill came before their videos counted as done."""
    kept = {part_path(folder, number) for number in but}
    for path in folder.glob("part-*.parquet"):
        if path not in kept:
            path.unlink()


def remove_rows(folder: Path, number: int, gone: Collection[tuple[str, float | None, float | None]]) -> None:
    """Remove the rows of some (video, start, end) from a part, if it is there."""
    path = part_path(folder, number)
    if not path.is_file():
        return
    table = parquet.read_table(path)
    keys = zip(*(table[name].to_pylist() for name in ("video", "start", "end")), strict=True)
    kept = table.filter(pa.array([key not in gone for key in keys], pa.bool_()))
    write_whole(path, lambda part: parquet.write_table(kept, part, compression="zstd"))


def read_about(folder: str | Path) -> dict[str, Any]:
    """Return what ``embeddings.json`` says.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = Path(folder) / ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: no embeddings there ({ABOUT}); make them with predict.py --embeddings {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); make the embeddings again") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or type(found.get("dim")) is not int:
        raise UserError(f"{path} is damaged, or of another version; make the embeddings again")
    return found


def read_embeddings(folder: str | Path) -> Iterator[tuple[pa.Table, NDArray[np.float32]]]:
    """Yield the videos that have features, part by part: the columns but ``feature``, and the features (N,E).

    Raises:
        UserError: there are none, or a file is damaged.
    """
    dim = read_about(folder)["dim"]
    for path in sorted(Path(folder).glob("part-*.parquet")):
        try:
            table = parquet.read_table(path, schema=COLUMNS)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged ({error}); make the embeddings again") from error
        there = table.filter(table["feature"].is_valid())
        if set(pc.list_value_length(there["feature"]).to_pylist()) - {dim}:
            raise UserError(f"{path}: its features are not of length {dim}, as {ABOUT} says; make the embeddings again")
        features = there["feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield there.drop_columns("feature"), features.reshape(-1, dim)
