"""Reads what ingest left: any clip's frames, memory-mapped, without decoding and without Ray."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.folder import INDEX, MANIFEST, SHARDS, Index, file_sha256
from pipelines.data.shardfile import Shard
from vlmodels.errors import UserError
from vlmodels.resize import Frames
from vlmodels.sampling import Sampling, Starts

OPEN_SHARDS = 256
"""Files kept mapped at once: each costs a file descriptor, of which a process often has 1024."""


class ClipStore:
    """An ingested data set. Cheap to pickle: another process opens the same folder again.

    Attributes:
        manifest: one row for every input video (``pipelines.data.manifest.SCHEMA``).
        digest: names this content: settings, classes, labels, files.
        classes: class names in label order.
        segments: T; each has ``len(offsets)`` stored frames, at these ``offsets`` inside the segment; of dense clips,
            at the places of the clips that begin at these ``Starts``.
        sampling: "segments" or "dense"; dense frames are ``stride`` apart.

    Raises:
        UserError: no finished ingest in ``folder``, or a shard of it is gone or cut.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        index = Index.read(self.folder)
        if index is None:
            raise UserError(self._unfinished())
        self.index = index
        self.digest, self.classes = index.digest, index.classes
        self.segments: int = index.decode["segments"]
        self.sampling: Sampling = index.decode.get("sampling", "segments")
        self.stride: int = index.decode.get("stride", 0)
        dense = self.sampling == "dense"
        self.offsets: tuple[float, ...] = Starts(index.decode["starts"]) if dense else tuple(index.decode["offsets"])
        self.manifest: pa.Table = self._read_manifest()
        columns = (self.manifest.column(name).to_pylist() for name in ("clip_id", "status", "shard", "row", "n_frames"))
        decoded = [row for row in zip(*columns, strict=True) if row[1] == "ok"]
        self._place = {clip: (shard, row) for clip, _, shard, row, _ in decoded}
        self._n_frames = {clip: n for clip, _, _, _, n in decoded}
        self._check_shards()
        # Not a method: a cache that refers to its owner would keep the files open until the next collection.
        self._reader = functools.lru_cache(OPEN_SHARDS)(functools.partial(_open_shard, self.folder / SHARDS))

    def __reduce__(self) -> tuple[type[ClipStore], tuple[Path]]:
        return (ClipStore, (self.folder,))

    def __len__(self) -> int:
        return len(self._place)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(P, H, W, 3)`` of the clips of the first shard; the short side is the same for all."""
        return self.index.shards[0].shape

    def frames(self, clip_id: str) -> Frames:
        """Return the stored frames ``[P, H, W, 3]`` of a clip, read-only and without a copy.

        ``P`` is segment-major: ``segments`` times ``len(offsets)``.

        Raises:
            KeyError: no clip of that name was decoded.
        """
        shard, row = self._place[clip_id]
        batch = self._reader(shard).get_batch(row)
        frames: Frames = batch.column("frames").to_numpy_ndarray()[0]
        if batch.column("clip_id")[0].as_py() != clip_id:
            raise UserError(f"{self.folder / SHARDS / shard} holds other clips than the manifest says; ingest again")
        return frames

    def place(self, clip_id: str) -> tuple[str, int]:
        """Return the shard file that a decoded clip is in, and its row there."""
        return self._place[clip_id]

    def n_frames(self, clip_id: str) -> int:
        """Return how many frames the video of a decoded clip has."""
        return self._n_frames[clip_id]

    def verify(self) -> None:
        """Read every shard and compare its SHA-256 with the index.

        Raises:
            UserError: naming the first shard that differs.
        """
        for shard in self.index.shards:
            if file_sha256(self.folder / SHARDS / shard.file) != shard.sha256:
                raise UserError(f"{self.folder / SHARDS / shard.file} is damaged; remove it and ingest again")

    def _read_manifest(self) -> pa.Table:
        path = self.folder / MANIFEST
        if not path.exists() or file_sha256(path) != self.index.manifest_sha256:
            raise UserError(self._unfinished())
        return pq.read_table(path)

    def _unfinished(self) -> str:
        if not self.folder.is_dir():
            return f"{self.folder}: no such folder; pipelines/ingest.py makes it"
        begun = (self.folder / SHARDS).is_dir()
        remedy = "run the same pipelines/ingest.py command again" if begun else "pipelines/ingest.py makes one"
        what = f"the ingest is unfinished (no {INDEX} that fits {MANIFEST})" if begun else f"no {INDEX} in it"
        return f"{self.folder}: {what}; {remedy}"

    def _check_shards(self) -> None:
        rows: dict[str, int] = {}
        for shard, row in self._place.values():
            rows[shard] = max(rows.get(shard, 0), row + 1)
        listed: dict[str, Shard] = {shard.file: shard for shard in self.index.shards}
        for name, least in rows.items():
            path, shard = self.folder / SHARDS / name, listed.get(name)
            if shard is None or shard.rows < least:
                raise UserError(f"{self.folder}: manifest and {INDEX} disagree about {name}; ingest again")
            size = path.stat().st_size if path.exists() else 0
            if size != shard.bytes:
                what = f"has {size} bytes instead of {shard.bytes}" if size else "is missing"
                raise UserError(f"{path} {what}; run the same pipelines/ingest.py command again")


def _open_shard(folder: Path, name: str) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(folder / name)))
