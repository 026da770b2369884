"""Columns of ``manifest.parquet``: one row for every input video."""

from __future__ import annotations

import pyarrow as pa

from pipelines.shards.index import MANIFEST

FACTS = pa.schema(
    [
        ("clip_id", pa.string()),  # sha256(uri)[:16]
        ("bytes", pa.int64()),  # size and time of change of the file that was read: they show whether it has changed
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),  # of the file's bytes
        ("width", pa.int32()),  # as displayed
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("n_frames", pa.int64()),  # of the clip
        ("decoder", pa.string()),
        ("status", pa.string()),  # "ok" or "quarantined"
        ("error", pa.string()),  # "" if ok
        ("shard", pa.string()),  # file in shards/ and row in it; "" and null if quarantined
        ("row", pa.int32()),
    ]
)
"""Columns of what decoding finds out about a clip."""

SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),  # as the list or folder names it, below the root; of a part, with its span behind it
        ("path", pa.string()),  # path of the file below the root; "" if it is missing
        ("label", pa.string()),  # class name; "" if unlabelled
        ("group", pa.string()),  # clips of one source video share it
        ("split", pa.string()),  # list names or train/val/test folder, joined by "|"; "" if none
        ("start_s", pa.float64()),  # part of the video that the clip is, in seconds; null for all of it
        ("end_s", pa.float64()),
        *(field for field in FACTS if field.name != "clip_id"),
    ]
)
"""Columns of ``manifest.parquet``, in order."""


def problem_of(manifest: pa.Table) -> str:
    """Return which column of a manifest is missing or has another type; "" if all are as they must be."""
    for field in SCHEMA:
        if field.name not in manifest.schema.names:
            return f"{MANIFEST} has no column {field.name}"
        found = manifest.schema.field(field.name).type
        if found != field.type:
            return f"{MANIFEST}: column {field.name} has the type {found}, not {field.type}"
    return ""
