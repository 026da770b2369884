"""Reads ingested data, here or in a store: any clip's frames, memory-mapped, without decoding and without Ray."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.shards.index import INDEX, MANIFEST, PARTS, SHARDS, Index
from pipelines.shards.integrity import Announce, ShardCheck, check_content
from pipelines.shards.manifest import problem_of
from pipelines.shards.shard_cache import ShardCache
from pipelines.shards.shard_file import Shard
from pipelines.storage.digests import KnownDigests
from pipelines.storage.files import file_sha256
from pipelines.storage.place import Place, is_uri
from vlmodels.errors import UserError
from vlmodels.paths import is_folder
from vlmodels.resize import Frames
from vlmodels.sampling import Sampling

OPEN_SHARDS = 256
"""Files kept mapped at once: each costs a file descriptor, of which a process often has 1024."""


@dataclass(frozen=True, slots=True)
class _StoredClip:
    shard: str
    row: int
    n_frames: int  # of the video


class ClipStore:
    """An ingested data set. Cheap to pickle: another process opens the same folder again.

    Of a URI, each machine keeps a copy (``pipelines.storage.cache``), with the shards that were read there.

    Args:
        folder: path or URI of the ingested data.
        open_shards: files kept mapped at once.

    Attributes:
        folder: where the small files lie on this machine.
        uri: what opens it on any machine: the URI as given, or the folder's absolute path.
        name: last part of the URI or path.
        manifest: one row for every input video (``pipelines.shards.manifest.SCHEMA``).
        digest: identifies the content: settings, classes, labels, files.
        classes: class names in label order.
        segments: T; each has ``len(offsets)`` stored frames, at these ``offsets`` inside the segment; of dense clips,
            at the places of the clips that begin at these ``Starts``.
        sampling: "segments" or "dense"; dense frames are ``stride`` apart.

    Raises:
        UserError: ``folder`` holds no finished ingest, its index or manifest is damaged, one of its shards is missing
            or truncated, or the store cannot be read.
    """

    def __init__(self, folder: str | Path, open_shards: int = OPEN_SHARDS) -> None:
        self._cache = ShardCache(str(folder)) if is_uri(folder) else None
        self._open_shards = open_shards
        if self._cache is not None:
            self.folder = self._cache.folder
            self.uri = str(folder)
            self._public_uri = self._cache.place.uri
        else:
            self.folder = Path(Place.open(folder).root)
            self.uri = self._public_uri = str(self.folder)
        self.name = Path(self._public_uri).name
        self.index = self._read_index()
        self.digest = self.index.digest
        self.classes = self.index.classes
        pool = self.index.pool
        self.segments: int = pool.segments
        self.sampling: Sampling = pool.sampling
        self.stride: int = pool.stride
        self.offsets: tuple[float, ...] = pool.offsets
        self._known = KnownDigests(self.folder)
        self.manifest: pa.Table = self._read_manifest()
        self._clips = _stored_clips(self.manifest)
        self._check_shards()
        # Not a method: a cache that refers to its owner would keep the files open until the next collection.
        self._check = ShardCheck(
            {shard.file: shard for shard in self.index.shards}, self.folder / SHARDS, self._known, self._cache
        )
        self._reader = functools.lru_cache(open_shards)(functools.partial(_open_shard, self._check.whole))

    def __reduce__(self) -> tuple[type[ClipStore], tuple[str, int]]:
        return (ClipStore, (self.uri, self._open_shards))

    def __len__(self) -> int:
        return len(self._clips)

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
        clip = self._clips[clip_id]
        batch = self._reader(clip.shard).get_batch(clip.row)
        frames: Frames = batch.column("frames").to_numpy_ndarray()[0]
        if batch.column("clip_id")[0].as_py() != clip_id:
            raise UserError(
                f"{self._public_uri}/{SHARDS}/{clip.shard} holds other clips than the manifest says; ingest again"
            )
        return frames

    def cached(self, shard: str) -> bool:
        """Return whether the shard can be read without the network."""
        return self._cache is None or self._cache.cached(shard)

    def fetch(self, shards: Iterable[str]) -> None:
        """Bring shards to this machine, several at a time; others come when they are read.

        Raises:
            UserError: one cannot be fetched, is damaged, or the disk is full.
        """
        if self._cache is not None:
            self._cache.fetch(shards)

    def place(self, clip_id: str) -> tuple[str, int]:
        """Return the shard file that holds a decoded clip, and the clip's row in it."""
        clip = self._clips[clip_id]
        return clip.shard, clip.row

    def n_frames(self, clip_id: str) -> int:
        """Return how many frames the video of a decoded clip has."""
        return self._clips[clip_id].n_frames

    def check(self, clips: Iterable[str], announce: Announce) -> None:
        """Compare the shards of clips with the index, unless this machine has read them since they changed last.

        ``frames`` does the same for one shard at a time; this finds damage before a long work begins.

        Args:
            clips: decoded clips.
            announce: gets number and bytes of the shards that are about to be read, if there are any.

        Raises:
            UserError: naming the first shard that is damaged.
        """
        self._check.check({self._clips[clip].shard for clip in clips}, announce)

    def verify(self) -> None:
        """Read every shard, also those that this machine has read before, and compare its SHA-256 with the index.

        Raises:
            UserError: naming the first shard that differs.
        """
        names = [shard.file for shard in self.index.shards]
        self.fetch(names)
        self._check.check(names, lambda *_: None, again=True)

    def _read_index(self) -> Index:
        index = self._cache.index if self._cache else Index.read(self.folder)
        if index is None:
            raise UserError(self._unfinished())
        return index

    def _read_manifest(self) -> pa.Table:
        path = self.folder / MANIFEST
        if not path.exists() or file_sha256(path) != self.index.manifest_sha256:
            if path.exists() and not any((self.folder / PARTS).glob("*")):
                raise UserError(
                    f"{path} is damaged or of another ingest; run the same pipelines/ingest.py command again"
                )
            raise UserError(self._unfinished())
        with pq.ParquetFile(path) as file:  # read_table imports pyarrow.dataset and, with it, pandas: 1.5 s
            manifest = file.read()
        problem = problem_of(manifest) or check_content(self.index, manifest, self.folder, self._known)
        if problem:
            raise UserError(f"{problem}; run the same pipelines/ingest.py command again")
        return manifest

    def _unfinished(self) -> str:
        if not is_folder(self.folder):
            return f"{self.folder}: no such folder; pipelines/ingest.py makes it"
        if not is_folder(self.folder / SHARDS):
            return f"{self.folder}: no {INDEX} in it; pipelines/ingest.py makes one"
        return (
            f"{self.folder}: the ingest is unfinished (no {INDEX} that fits {MANIFEST}); "
            "run the same pipelines/ingest.py command again"
        )

    def _check_shards(self) -> None:
        """Compare the manifest's shards with the index, and their sizes with the files."""
        least_rows: dict[str, int] = {}
        for clip in self._clips.values():
            least_rows[clip.shard] = max(least_rows.get(clip.shard, 0), clip.row + 1)
        indexed = {shard.file: shard for shard in self.index.shards}
        sizes = self._shard_sizes(least_rows)
        for name, least in least_rows.items():
            shard = indexed.get(name)
            if shard is None or shard.rows < least:
                raise UserError(f"{self._public_uri}: manifest and {INDEX} disagree about {name}; ingest again")
            self._check_size(shard, sizes.get(name, 0))

    def _shard_sizes(self, names: Iterable[str]) -> dict[str, int]:
        if self._cache is not None:
            return self._cache.sizes()
        paths = [self.folder / SHARDS / name for name in names]
        return {path.name: path.stat().st_size for path in paths if path.exists()}

    def _check_size(self, shard: Shard, size: int) -> None:
        if size == shard.bytes:
            return
        problem = f"has {size} bytes instead of {shard.bytes}" if size else "is missing"
        remedy = "copy the ingested folder there" if self._cache else "run the same pipelines/ingest.py command"
        raise UserError(f"{self._public_uri}/{SHARDS}/{shard.file} {problem}; {remedy} again")


def _stored_clips(manifest: pa.Table) -> dict[str, _StoredClip]:
    names = ("clip_id", "status", "shard", "row", "n_frames")
    columns = (manifest.column(name).to_pylist() for name in names)
    return {
        clip_id: _StoredClip(shard, row, n_frames)
        for clip_id, status, shard, row, n_frames in zip(*columns, strict=True)
        if status == "ok"
    }


def _open_shard(file: Callable[[str], Path], name: str) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(file(name))))
