"""Reads a folder of embeddings, block by block: ``embeddings.json`` and ``part-*.arrow``.

A row of a part is a video, or some seconds of one: ``video``, ``start`` and ``end`` (seconds, or null), ``status``
("ok" or "failed"), ``reason``, and ``feature``, an L2-normalised list of E float32, or null. Parts are Arrow's files
(``pandas.read_feather`` reads them): of Parquet, pyarrow decodes a million lists of 512 in 4 to 6 s, and cannot read a
null among lists of a fixed size (Arrow's issue 35692).
"""

# Shapes: N row of a block, E length of a feature.

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, ipc

from vlmodels.errors import UserError, nearest
from vlmodels.paths import is_folder, is_there

ABOUT = "embeddings.json"
SCHEMA = 1
BLOCK = 8192
"""Rows of a block at most: 16 MiB of 512 numbers."""
_COLUMNS = ("video", "start", "end", "status")
_FEATURE = "feature"
_LONGEST = 1 << 16
"""The length that features have at most."""
_AGAIN = "make the embeddings again"


@dataclass(frozen=True, slots=True)
class Identity:
    """The model whose features a folder holds.

    Attributes:
        model: URI or folder, as it was given.
        run: name of the run.
        adapter_sha256: of the adapter's file.
        backbone: name of the backbone.
        weights_digest: of the backbone's tensors (``Backbone.digest``).
        dim: E, length of a feature.
        views: clips, crops, sampling and stride of the predictor.
    """

    model: str
    run: str
    adapter_sha256: str
    backbone: str
    weights_digest: str
    dim: int
    views: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows that have a feature.

    Attributes:
        first: number of the first of these rows in the folder, among all that have a feature.
        facts: columns ``video``, ``start`` and ``end`` (N).
        features: (N,E).
    """

    first: int
    facts: pa.RecordBatch
    features: NDArray[np.float32]


@dataclass
class Embeddings:
    """A folder of features.

    Attributes:
        folder: where it is.
        identity: the model that made it.
        parts: files, in the order of their names.
        damaged: files that cannot be read, each with the reason; reading may add some.
        failed: rows without a feature, among those read so far.
        wanted: number of videos, if their features are still being made, or that was cut off; 0 if all are there.
    """

    folder: Path
    identity: Identity
    parts: tuple[Path, ...]
    damaged: dict[str, str] = field(default_factory=dict)
    failed: int = 0
    wanted: int = 0

    @property
    def unfinished(self) -> str:
        """What is missing, and what to do; "" if nothing is."""
        if not self.wanted:
            return ""
        done = len(set[str]().union(*map(_videos, self.parts)))
        return (
            f"{self.folder} is unfinished: it holds {done:,} of {self.wanted:,} videos; the predict.py command that "
            "made it continues it"
        )

    def blocks(self) -> Iterator[Block]:
        """Read all features, in constant memory; a part that turns out damaged ends early, and is in ``damaged``."""
        first = self.failed = 0
        for path in self.parts:
            try:
                for batch in _batches(path):
                    there = _is_ok(batch["status"])
                    features = _features(batch["feature"], there, self.identity.dim)
                    facts = batch.select(_COLUMNS[:3])
                    if len(features):
                        yield Block(first, facts if there.all() else facts.filter(pa.array(there)), features)
                    first += len(features)
                    self.failed += len(batch) - len(features)
            except (OSError, pa.ArrowException, PartError) as error:
                self.damaged[path.name] = _reason(error)


class PartError(ValueError):
    """A part holds something else than embeddings."""


def open_embeddings(folder: str | Path) -> Embeddings:
    """Open a folder of embeddings: read what it says, and the footers of its parts.

    Raises:
        UserError: there is no such folder, it holds no embeddings, or nothing in it can be read.
    """
    folder = Path(folder)
    identity, wanted = _about(folder)
    found, damaged = list[Path](), dict[str, str]()
    for path in sorted(folder.glob("part-*.arrow")):
        try:
            with pa.OSFile(str(path)) as file, ipc.open_file(file) as part:
                _check(part.schema, identity.dim)
            found.append(path)
        except (OSError, pa.ArrowException, PartError) as error:
            damaged[path.name] = _reason(error)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in damaged.items()) or "there is no part-*.arrow"
        raise UserError(f"{folder} has no features that can be read ({why}); {_AGAIN}")
    return Embeddings(folder, identity, tuple(found), damaged, wanted=wanted)


def _about(folder: Path) -> tuple[Identity, int]:
    """Read what a folder says: its model, and how many videos it is to hold if some may be missing."""
    remedy = "make embeddings with predict.py --embeddings DIR"
    if not is_folder(folder):
        raise UserError(f"{folder}: {'not a folder' if is_there(folder) else 'no such folder'}; {remedy}")
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: there is no {ABOUT} in it; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({_reason(error)}); {_AGAIN}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise UserError(f"{path} is of another version ({str(schema)[:20]} instead of {SCHEMA}); {_AGAIN}")
    texts = ("model", "run", "adapter_sha256", "backbone", "weights_digest")
    wrong = [name for name in texts if not isinstance(found.get(name), str)]
    dim, views = found.get("dim"), found.get("views", {})
    if not isinstance(dim, int) or not 2 <= dim <= _LONGEST:
        wrong, dim = [*wrong, "dim"], 0
    wrong += ["views"] if not isinstance(views, dict) else []
    wanted = 0 if found.get("complete", True) else found.get("videos")
    wrong += ["videos"] if not isinstance(wanted, int) else []
    if wrong:
        raise UserError(f"{path} is damaged ({', '.join(wrong)}); {_AGAIN}")
    return Identity(**{name: found[name] for name in texts}, dim=dim, views=views), int(wanted or 0)


def _check(schema: pa.Schema, dim: int) -> None:
    """Raise PartError unless a part has the columns of embeddings."""
    for name in (*_COLUMNS, _FEATURE):
        if name not in schema.names:
            raise PartError(f"it has no column '{name}'{nearest(name, schema.names)}")
    kind = schema.field(_FEATURE).type
    if kind != pa.list_(pa.float32(), dim):
        raise PartError(f"its features are {kind}, not {dim} float32")


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a part's rows, at most ``BLOCK`` at a time."""
    # Not mapped: pages that were read would count as this process's memory.
    with pa.OSFile(str(path)) as file, ipc.open_file(file) as part:
        for number in range(part.num_record_batches):
            batch = part.get_batch(number)
            batch.validate(full=True)
            for start in range(0, len(batch), BLOCK):
                yield batch.slice(start, BLOCK)


def _videos(path: Path) -> set[str]:
    """Return the videos of a part, as far as it can be read."""
    found: set[str] = set()
    with contextlib.suppress(OSError, pa.ArrowException), pa.OSFile(str(path)) as file:
        with ipc.open_file(file) as part:
            without_features = ipc.IpcReadOptions(included_fields=[part.schema.get_field_index("video")])
        with ipc.open_file(file, options=without_features) as part:
            for number in range(part.num_record_batches):
                found.update(part.get_batch(number)["video"].to_pylist())
    return found


def _is_ok(status: pa.Array) -> NDArray[np.bool_]:
    """Return which rows (N) have a feature."""
    found: NDArray[np.bool_] = compute.fill_null(compute.equal(status, "ok"), False).to_numpy(zero_copy_only=False)
    return found


def _features(lists: pa.FixedSizeListArray, there: NDArray[np.bool_], dim: int) -> NDArray[np.float32]:
    """Return the features (N,E) of the rows that have one.

    Raises:
        PartError: the status of a row and its feature contradict each other.
    """
    if not np.array_equal(lists.is_valid().to_numpy(zero_copy_only=False), there):
        raise PartError("a row is ok and has no feature, or failed and has one")
    found: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    return found


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
