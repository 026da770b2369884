"""Folders of embeddings, written by the description of their format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc

ABOUT = {
    "schema": 1,
    "model": "runs/toy",
    "run": "toy",
    "adapter_sha256": "a" * 64,
    "backbone": "toy",
    "weights_digest": "b" * 64,
    "dtype": "float32",
    "normalised": True,
    "views": {"clips": 1, "crops": 1, "sampling": "segments", "stride": 16},
}


def write_about(folder: Path, dim: int, **changed) -> None:
    """Write ``embeddings.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "embeddings.json").write_text(json.dumps(ABOUT | {"dim": dim} | changed))


def table_of(rows, dim):
    """The table of rows (video, start, end, feature or None)."""
    videos, starts, ends, features = zip(*rows, strict=True)
    status = ["failed" if feature is None else "ok" for feature in features]
    reasons = ["no frames" if feature is None else "" for feature in features]
    lists = pa.array([None if f is None else np.asarray(f, np.float32) for f in features], pa.list_(pa.float32(), dim))
    columns = {"video": pa.array(videos, pa.string()), "start": pa.array(starts, pa.float64())}
    columns |= {"end": pa.array(ends, pa.float64()), "status": pa.array(status), "reason": pa.array(reasons)}
    return pa.table(columns | {"feature": lists})


def write_table(path: Path, table: pa.Table, rows_at_once: int = 8192) -> None:
    """Write a part."""
    with ipc.new_file(path, table.schema) as part:
        part.write_table(table, max_chunksize=rows_at_once)


def write_part(folder: Path, number: int, rows, dim: int, *, rows_at_once: int = 8192) -> Path:
    """Write a part of rows (video, start, end, feature or None)."""
    path = folder / f"part-{number:06d}.arrow"
    write_table(path, table_of(rows, dim), rows_at_once)
    return path


def unit(features):
    """L2-normalised float32 features (N,E)."""
    features = np.asarray(features, np.float32)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)
