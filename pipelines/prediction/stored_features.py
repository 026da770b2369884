"""Reads a folder of embeddings, block by block: ``embeddings.json`` and ``part-*.parquet``.

A row of a part is a video, or some seconds of one: ``video``, ``start`` and ``end`` (seconds, or null), ``status``
("ok" or "failed"), ``reason``, and ``feature``, an L2-normalised list of E float32, or null. Lists are of any type:
pyarrow writes a null among lists of a fixed size, but cannot read it (Arrow's issue 35692).
"""

# Shapes: N row of a block, E length of a feature.

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, parquet
from pyarrow import types as arrow

from pipelines.prediction.plain_pages import PageError, PlainReader, plain_column
from vlmodels.errors import UserError, nearest
from vlmodels.paths import is_folder, is_there

ABOUT = "embeddings.json"
SCHEMA = 1
BLOCK = 8192
"""Rows of a block: 16 MiB of 512 numbers."""
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
        features: (N,E); valid until the next block is read.
    """

    first: int
    facts: pa.RecordBatch
    features: NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A file of features that could be opened."""

    path: Path
    rows: int


@dataclass
class Embeddings:
    """A folder of features.

    Attributes:
        folder: where it is.
        identity: the model that made it.
        parts: files, in the order of their names.
        damaged: files that cannot be read, each with the reason; reading may add some.
        failed: rows without a feature, among those read so far.
    """

    folder: Path
    identity: Identity
    parts: tuple[Part, ...]
    damaged: dict[str, str] = field(default_factory=dict)
    failed: int = 0

    @cached_property
    def rows(self) -> int:
        """Rows of all parts, those without a feature included."""
        return sum(part.rows for part in self.parts)

    def blocks(self, rows: int = BLOCK) -> Iterator[Block]:
        """Read all features, in constant memory; a part that turns out damaged ends early, and is in ``damaged``."""
        first = self.failed = 0
        for part in self.parts:
            try:
                for facts, features in _read(part.path, self.identity.dim, rows):
                    there = _is_ok(facts["status"])
                    self.failed += len(there) - int(there.sum())
                    kept = facts if there.all() else facts.filter(pa.array(there))
                    if len(kept):
                        yield Block(first, kept.select(_COLUMNS[:3]), features)
                    first += len(kept)
            except (OSError, pa.ArrowException, PageError) as error:
                self.damaged[part.path.name] = _reason(error)


def open_embeddings(folder: str | Path) -> Embeddings:
    """Open a folder of embeddings: read what it says, and the footers of its parts.

    Raises:
        UserError: there is no such folder, it holds no embeddings, or nothing in it can be read.
    """
    folder = Path(folder)
    identity = _identity(folder)
    found, damaged = list[Part](), dict[str, str]()
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                _check(file.schema_arrow, identity.dim)
                found.append(Part(path, file.metadata.num_rows))
        except (OSError, pa.ArrowException, PageError) as error:
            damaged[path.name] = _reason(error)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in damaged.items()) or "there is no part-*.parquet"
        raise UserError(f"{folder} has no features that can be read ({why}); {_AGAIN}")
    return Embeddings(folder, identity, tuple(found), damaged)


def _identity(folder: Path) -> Identity:
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
    if wrong:
        raise UserError(f"{path} is damaged ({', '.join(wrong)}); {_AGAIN}")
    return Identity(**{name: found[name] for name in texts}, dim=dim, views=views)


def _check(schema: pa.Schema, dim: int) -> None:
    """Raise PageError unless a part has the columns of embeddings."""
    for name in (*_COLUMNS, _FEATURE):
        if name not in schema.names:
            raise PageError(f"it has no column '{name}'{nearest(name, schema.names)}")
    kind = schema.field(_FEATURE).type
    lists = arrow.is_list(kind) or (arrow.is_fixed_size_list(kind) and kind.list_size == dim)
    if not lists or not arrow.is_float32(kind.value_type):
        raise PageError(f"its features are {kind}, not {dim} float32")


def _read(path: Path, dim: int, rows: int) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
    """Yield all rows' columns but ``feature``, and the features (N,E) of those that are "ok"."""
    # a buffer, as a whole row group's pages could be larger than the memory
    with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, read_dictionary=["video", "status"]) as file:
        column = plain_column(path, file.metadata, _FEATURE, dim)
        if column is None or column.counts != _counts(file):
            yield from _decoded(file, dim, rows)
            return
        with PlainReader(column) as features:
            for facts in file.iter_batches(rows, columns=list(_COLUMNS), use_threads=False):
                yield facts, features.take(int(_is_ok(facts["status"]).sum()))


def _counts(file: parquet.ParquetFile) -> tuple[int, ...]:
    """Return how many rows are "ok", of each row group."""
    column = file.read(columns=["status"], use_threads=False)["status"]
    there = np.concatenate([np.zeros(1, np.int64), *(_is_ok(chunk) for chunk in column.chunks)]).cumsum()
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return tuple(np.diff(there[np.cumsum([0, *sizes])]).tolist())


def _is_ok(status: pa.Array) -> NDArray[np.bool_]:
    """Return which rows (N) have a feature."""
    if not arrow.is_dictionary(status.type) or status.null_count:
        return np.array([name == "ok" for name in status.to_pylist()], np.bool_)
    known = np.array([name == "ok" for name in status.dictionary.to_pylist()], np.bool_)
    found: NDArray[np.bool_] = known[status.indices.to_numpy()]
    return found


def _decoded(file: parquet.ParquetFile, dim: int, rows: int) -> Iterator[tuple[pa.RecordBatch, NDArray[np.float32]]]:
    """Yield the same, decoded by pyarrow, which reads no null among lists of a fixed size (Arrow's issue 35692)."""
    for batch in file.iter_batches(rows, columns=[*_COLUMNS, _FEATURE], use_threads=False):
        there = _is_ok(batch["status"])
        lists = batch[_FEATURE].filter(pa.array(there))
        if lists.null_count or any(length != dim for length in compute.unique(lists.value_lengths()).to_pylist()):
            raise PageError(f"a feature that is not of {dim} numbers")
        features = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        yield batch.select(_COLUMNS), features


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
