"""Shard files: Arrow IPC files of fixed-shape frame tensors that plain pyarrow memory-maps.

A file holds clips of one shape, one record batch for each clip. It appears under its name only when whole.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlmodels.resize import Frames

Shape = tuple[int, ...]
CHUNK = 1 << 18
"""Bytes of one write: writes of 10 MB take ten times as long as writes that fit a processor cache."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard file as the index lists it; ``shape`` is ``(P, H, W, 3)``, that of every clip in it."""

    file: str
    rows: int
    shape: Shape
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry of index.json."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Shard:
        """Read an entry of index.json."""
        return cls(**{**entry, "shape": tuple(entry["shape"])})


class ShardWriter:
    """Writes the clips of one batch as they come, one file for each shape, which gets its name from ``close``."""

    def __init__(self, folder: Path, batch: str) -> None:
        self._folder = folder
        self._batch = batch
        self._open: dict[Shape, _OpenShard] = {}

    def add(self, clip_id: str, frames: Frames) -> tuple[str, int]:
        """Append a clip; return the name of the file that it will be in, and its row there."""
        shard = self._open.get(frames.shape)
        if shard is None:
            name = f"{self._batch}-{'x'.join(map(str, frames.shape[:3]))}.arrow"
            shard = self._open[frames.shape] = _OpenShard(self._folder, name, frames.shape)
        return shard.name, shard.add(clip_id, frames)

    def close(self) -> list[Shard]:
        """Finish all files, rename them, and return them."""
        return [shard.close() for shard in self._open.values()]

    def abort(self) -> None:
        """Remove the unfinished files."""
        for shard in self._open.values():
            shard.abort()


class _OpenShard:
    def __init__(self, folder: Path, name: str, shape: Shape) -> None:
        self.name = name
        self._shape = shape
        self._rows = 0
        self._path = folder / name
        self._part = folder / f"{name}.{os.getpid()}.tmp"
        self._type = pa.fixed_shape_tensor(pa.uint8(), shape)
        self._schema = pa.schema([("clip_id", pa.string()), ("frames", self._type)])
        self._sink = _HashedFile(self._part)
        try:
            self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), self._schema)
        except OSError:
            self.abort()
            raise

    def add(self, clip_id: str, frames: Frames) -> int:
        pixels = pa.Array.from_buffers(pa.uint8(), frames.size, [None, pa.py_buffer(np.ascontiguousarray(frames))])
        tensor = pa.ExtensionArray.from_storage(self._type, pa.FixedSizeListArray.from_arrays(pixels, frames.size))
        self._writer.write_batch(pa.record_batch([pa.array([clip_id]), tensor], schema=self._schema))
        self._rows += 1
        return self._rows - 1

    def close(self) -> Shard:
        self._writer.close()
        self._sink.close()
        size = self._part.stat().st_size
        self._part.replace(self._path)
        return Shard(self.name, self._rows, self._shape, size, self._sink.sha256.hexdigest())

    def abort(self) -> None:
        self._sink.close()
        self._part.unlink(missing_ok=True)


class _HashedFile:
    """A file that computes the SHA-256 of what is written to it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        done = 0
        while done < len(view):
            written = self._file.write(view[done : done + CHUNK]) or 0
            self.sha256.update(view[done : done + written])
            done += written
        return done

    def flush(self) -> None:
        """Do nothing: the file is unbuffered."""

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed
