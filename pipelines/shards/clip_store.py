"""Reads what ingest left, here or in a store: any clip's frames, memory-mapped, without decoding and without Ray."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.shards.index import INDEX, MANIFEST, SHARDS, Index
from pipelines.shards.shard_cache import ShardCache
from pipelines.shards.shard_file import Shard
from pipelines.storage.files import file_sha256
from pipelines.storage.place import Place, is_uri
from vlmodels.errors import UserError
from vlmodels.resize import Frames
from vlmodels.sampling import Sampling, Starts

OPEN_SHARDS = 256
"""Files kept mapped at once: each costs a file descriptor, of which a process often has 1024."""


class ClipStore:
    """An ingested data set. Cheap to pickle: another process opens the same folder again.

    Of a URI, each machine keeps a copy (``pipelines.storage.cache``), with the shards that were read there.

    Attributes:
        folder: where the small files lie on this machine.
        uri: what to open it by on any machine: the URI as given, or the folder's absolute path.
        name: last part of the URI or path.
        manifest: one row for every input video (``pipelines.shards.manifest.SCHEMA``).
        digest: names this content: settings, classes, labels, files.
        classes: class names in label order.
        segments: T; each has ``len(offsets)`` stored frames, at these ``offsets`` inside the segment; of dense clips,
            at the places of the clips that begin at these ``Starts``.
        sampling: "segments" or "dense"; dense frames are ``stride`` apart.

    Raises:
        UserError: no finished ingest in ``folder``, a shard of it is gone or cut, or the store cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self._cache = ShardCache(str(folder)) if is_uri(folder) else None
        self.folder = self._cache.folder if self._cache else Path(Place.open(folder).root)
        self.uri = str(folder if self._cache else self.folder)
        self._shown = self._cache.place.uri if self._cache else self.uri
        self.name = Path(self._shown).name
        index = self._cache.index if self._cache else Index.read(self.folder)
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
        self._file = self._cache.ready if self._cache else (self.folder / SHARDS).joinpath
        self._reader = functools.lru_cache(OPEN_SHARDS)(functools.partial(_open_shard, self._file))

    def __reduce__(self) -> tuple[type[ClipStore], tuple[str]]:
        return (ClipStore, (self.uri,))

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
            UserError: its shard cannot be fetched, or is damaged.
        """
        shard, row = self._place[clip_id]
        batch = self._reader(shard).get_batch(row)
        frames: Frames = batch.column("frames").to_numpy_ndarray()[0]
        if batch.column("clip_id")[0].as_py() != clip_id:
            raise UserError(f"{self._shown}/{SHARDS}/{shard} holds other clips than the manifest says; ingest again")
        return frames

    def cached(self, shard: str) -> bool:
        """Whether the shard can be read without the network."""
        return self._cache is None or self._cache.cached(shard)

    def fetch(self, shards: Iterable[str]) -> None:
        """Bring shards to this machine, several at a time; those that are not fetched come when they are read.

        Raises:
            UserError: one cannot be fetched, is damaged, or the disk is full.
        """
        if self._cache is not None:
            self._cache.fetch(shards)

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
        remedy = "it will be fetched again" if self._cache else "ingest again"
        for shard in self.index.shards:
            if file_sha256(path := self._file(shard.file)) != shard.sha256:
                raise UserError(f"{path} is damaged; remove it and {remedy}")

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
        stored = self._cache.sizes() if self._cache else None
        remedy = "copy the ingested folder there" if self._cache else "run the same pipelines/ingest.py command"
        for name, least in rows.items():
            path, shard = self.folder / SHARDS / name, listed.get(name)
            if shard is None or shard.rows < least:
                raise UserError(f"{self._shown}: manifest and {INDEX} disagree about {name}; ingest again")
            size = (path.stat().st_size if path.exists() else 0) if stored is None else stored.get(name, 0)
            if size != shard.bytes:
                what = f"has {size} bytes instead of {shard.bytes}" if size else "is missing"
                raise UserError(f"{self._shown}/{SHARDS}/{name} {what}; {remedy} again")


def _open_shard(file: Callable[[str], Path], name: str) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(file(name))))
