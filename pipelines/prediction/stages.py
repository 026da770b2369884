"""The two stages of a prediction on Ray Data: tasks that decode, actors that hold the model; and their tables."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.prediction.decode import DecodeRequest, FatalError, Look, decode_batch
from pipelines.prediction.model import ModelFiles
from pipelines.prediction.videos import ListedVideo, Listing
from vlmodels.errors import UserError
from vlmodels.span import Span

if TYPE_CHECKING:
    from pipelines.prediction.scoring import Scored, ScoreRequest

PLAN = pa.schema(
    [
        ("index", pa.int64()),
        ("video", pa.binary()),  # as the file system has it: names need not be text
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("frames", pa.bool_()),
        ("fps", pa.float64()),
    ]
)
_LOOK = [
    ("index", pa.int64()),
    ("start", pa.float64()),
    ("end", pa.float64()),
    ("reason", pa.string()),
    ("seconds", pa.float64()),
    ("bytes", pa.int64()),
    ("mtime_ns", pa.int64()),
    ("fatal", pa.string()),
]
LOOKS = pa.schema([*_LOOK, ("frames", pa.large_binary()), ("shape", pa.list_(pa.int32()))])
SCORED = pa.schema(
    [
        *_LOOK,
        ("status", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        ("feature", pa.list_(pa.float32())),
    ]
)


def plan_table(listing: Listing, pending: Sequence[int]) -> pa.Table:
    """Return the videos that are to be looked at: 60 bytes and its name for each."""
    videos = [listing[index] for index in pending]
    spans = [video.span for video in videos]
    columns = [
        pa.array(pending, pa.int64()),
        pa.array([os.fsencode(video.video) for video in videos], pa.binary()),
        pa.array([span and span.start for span in spans], pa.float64()),
        pa.array([span and span.end for span in spans], pa.float64()),
        pa.array([span is not None and span.unit == "frames" for span in spans], pa.bool_()),
        pa.array([video.fps for video in videos], pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=PLAN)


def videos_of(plan: pa.Table) -> list[ListedVideo]:
    """Return the videos of some rows of a plan."""
    found = []
    for row in plan.to_pylist():
        unit: Any = "frames" if row["frames"] else "seconds"
        span = None if row["start"] is None else Span(row["start"], row["end"], unit)
        found.append(ListedVideo(row["index"], os.fsdecode(row["video"]), span, row["fps"]))
    return found


@dataclass(frozen=True)
class SharedPlan:
    """The plan in Ray's object store, and how many of its rows are a batch."""

    table: Any
    size: int

    def batch(self, number: int) -> list[ListedVideo]:
        """Return the videos of a batch."""
        import ray

        plan: pa.Table = ray.get(self.table)
        return videos_of(plan.slice(number * self.size, self.size))


def decode_on_ray(numbers: pa.Table, plan: SharedPlan, request: DecodeRequest) -> Iterator[pa.Table]:
    """Decode batches of a plan, by their numbers (column ``id``); yield a table ``LOOKS`` for each."""
    for number in numbers["id"].to_pylist():
        videos = plan.batch(number)
        try:
            yield looks_table([_row_of(look) for look in decode_batch(videos, request)])
        except FatalError as error:
            yield looks_table([{"index": videos[0].index, "fatal": str(error)}])


def _row_of(look: Look) -> dict[str, Any]:
    row = _facts(look)
    if look.frames is not None:
        row |= {"frames": look.frames.tobytes(), "shape": list(look.frames.shape)}
    return row


def _facts(look: Look) -> dict[str, Any]:
    return {name: getattr(look, name) for name in ("index", "start", "end", "seconds", "bytes", "mtime_ns")} | {
        "reason": look.reason.encode(errors="backslashreplace").decode()
    }


def looks_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return a table ``LOOKS`` of rows, of which absent values are null."""
    return pa.Table.from_pylist(list(rows), schema=LOOKS)


def looks_of(table: pa.Table) -> list[Look]:
    """Return the looks of a table ``LOOKS``; their frames stay where the table has them."""
    rows = table.drop_columns(["frames", "fatal", "shape"]).to_pylist()
    looks = [Look(**{name: value for name, value in row.items() if value is not None}) for row in rows]
    frames = table["frames"]
    shapes = table["shape"].to_pylist()
    return [
        look if shape is None else replace(look, frames=_array(frames[number], shape))
        for number, (look, shape) in enumerate(zip(looks, shapes, strict=True))
    ]


def _array(value: pa.Scalar, shape: Sequence[int]) -> Any:
    return np.frombuffer(value.as_buffer(), np.uint8).reshape(shape)


@dataclass(frozen=True)
class SharedFiles:
    """The ``ModelFiles`` in Ray's object store."""

    reference: Any


class ModelStage:
    """An actor with the model; it scores a table ``LOOKS`` at a time, and returns a table ``SCORED``.

    Args:
        files: the model's.
        request: what is asked of each video.
        device: where the model computes.
    """

    def __init__(self, files: SharedFiles, request: ScoreRequest, device: str) -> None:
        import ray
        import torch

        self._request = request
        self._problem = ""
        torch.set_num_threads(cpus_of_node())
        try:
            loaded: ModelFiles = ray.get(files.reference)
            self._predictor = loaded.load(device)
        except (UserError, OSError, RuntimeError) as error:
            self._problem = f"{error} (on {socket.gethostname()})"

    def __call__(self, looks: pa.Table) -> pa.Table:
        """Return the scores of a table of looks."""
        from pipelines.prediction.scoring import score_looks

        fatal = next(filter(None, looks["fatal"].to_pylist()), "") or self._problem
        if fatal:
            return pa.Table.from_pylist([{"fatal": fatal}], schema=SCORED)
        try:
            scored = score_looks(self._predictor, looks_of(looks), self._request)
        except FatalError as error:
            return pa.Table.from_pylist([{"fatal": f"{error} (on {socket.gethostname()})"}], schema=SCORED)
        return pa.Table.from_pylist([_scored_row(one) for one in scored], schema=SCORED)


def cpus_of_node() -> int:
    """Return the CPUs that Ray has on this machine."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    found = next((node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == own), 1)
    return max(1, int(found))


def _scored_row(scored: Scored) -> dict[str, Any]:
    return _facts(scored.look) | {
        "status": scored.status,
        "labels": [label for label, _ in scored.topk],
        "probabilities": [probability for _, probability in scored.topk],
        "feature": scored.feature,
    }


def scored_of(table: pa.Table) -> list[Scored]:
    """Return what a table ``SCORED`` holds.

    Raises:
        FatalError: the run cannot continue.
    """
    from pipelines.prediction.scoring import Scored

    found = []
    for row in table.to_pylist():
        if row["fatal"]:
            raise FatalError(row["fatal"])
        facts = {name: row[name] for name in ("index", "start", "end", "reason", "seconds", "bytes", "mtime_ns")}
        topk = tuple(zip(row["labels"], row["probabilities"], strict=True))
        feature = None if row["feature"] is None else np.asarray(row["feature"], np.float32)
        found.append(Scored(Look(**facts), row["status"], topk, feature))
    return found
