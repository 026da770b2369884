"""The answer about a video as a row: of a table in Parquet or CSV, or a line of JSON. The one place that knows both."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.prediction.cells import path_cell, text_cell
from pipelines.videos.file_tree import shown
from vlmodels.predictor import span_of

OK, NONE, FAILED = "ok", "none", "failed"
"""States: an answer, "none of these", or why there is none (``Row.reason``)."""
NONE_OF_THESE = "none of these"
"""What people read instead of a label."""
ROWS_AT_ONCE = 10_000
"""Rows of a row group in Parquet."""
SCHEMA = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        ("start", pa.float64()),
        ("end", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("topk", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))),
        ("seconds", pa.float64()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was found out about a video, or a part of it.

    Attributes:
        video: path or URI as given.
        start: seconds from which on it was looked at; None for its start.
        end: seconds up to which; None for its end.
        status: ``OK``, ``NONE`` or ``FAILED``.
        topk: labels and probabilities, best first; also those of a "none of these".
        seconds: of decoding, and the video's share of scoring.
        reason: why it failed; "" if it did not.
    """

    video: str
    start: float | None = None
    end: float | None = None
    status: str = OK
    topk: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object of the columns ``SCHEMA``, all of them text or numbers."""
        best = self.topk[0] if self.topk else (None, None)
        return {
            "video": shown(self.video),
            "start": self.start,
            "end": self.end,
            "status": self.status,
            "label": NONE_OF_THESE if self.status == NONE else best[0],
            "probability": best[1],
            "topk": [{"label": label, "probability": probability} for label, probability in self.topk],
            "seconds": round(self.seconds, 4),
            "reason": shown(self.reason),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Row:
        """Read what ``to_json`` returned."""
        topk = tuple((one["label"], one["probability"]) for one in found["topk"])
        return cls(
            found["video"], found["start"], found["end"], found["status"], topk, found["seconds"], found["reason"]
        )

    @property
    def json_line(self) -> str:
        """The row as ``predict.py --json`` prints it: probabilities by labels."""
        found = self.to_json()
        wanted = {
            name: found[name] for name in ("video", "start", "end", "status", "reason") if found[name] not in (None, "")
        }
        return json.dumps({**wanted, "predictions": {label: round(p, 6) for label, p in self.topk}})

    @property
    def lines(self) -> list[str]:
        """The row for people: the video, and below it its labels."""
        span = span_of(self.start, self.end)
        name = shown(self.video) if span is None else span.after(shown(self.video))
        none = [f"  {NONE_OF_THESE}; the most probable are"] if self.status == NONE else []
        best = [f"  {100 * probability:5.1f} %  {label}" for label, probability in self.topk]
        return [name, *none, *best]


def write_parquet(path: Path, rows: Iterable[Row], about: Mapping[str, str]) -> None:
    """Write rows as they come, with ``about`` as metadata of the file; in memory are some thousands at a time.

    Raises:
        OSError: they cannot be written.
    """
    from pyarrow import parquet  # late: a handful of videos is printed alone

    schema = SCHEMA.with_metadata(dict(about))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        left = iter(rows)
        while some := list(islice(left, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([row.to_json() for row in some], schema=schema))


def write_csv(path: Path, rows: Iterable[Row], topk: int) -> None:
    """Write rows as they come: the columns ``SCHEMA``, but further labels as columns ``label_2,probability_2``, ...

    No cell is one that a spreadsheet would calculate (``pipelines.prediction.cells``).

    Raises:
        OSError: they cannot be written.
    """
    further = [f"{name}_{place}" for place in range(2, topk + 1) for name in ("label", "probability")]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video", "start", "end", "status", "label", "probability", *further, "seconds", "reason"])
        writer.writerows(_cells(row, topk) for row in rows)


def _cells(row: Row, topk: int) -> Sequence[Any]:
    found = row.to_json()
    rest = [cell for one in row.topk[1:] for cell in (text_cell(one[0]), f"{one[1]:.6f}")]
    best = "" if found["probability"] is None else f"{found['probability']:.6f}"
    return [
        path_cell(found["video"]),
        *("" if time is None else repr(time) for time in (row.start, row.end)),
        row.status,
        text_cell(found["label"] or ""),
        best,
        *rest,
        *[""] * (2 * (topk - 1) - len(rest)),
        f"{row.seconds:.3f}",
        text_cell(found["reason"]),
    ]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file that ``write_parquet`` wrote.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for some in file.iter_batches(ROWS_AT_ONCE):
            yield from map(Row.from_json, some.to_pylist())
