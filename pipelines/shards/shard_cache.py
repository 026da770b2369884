"""Ingested data in a store, and the copies of its shards on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow import fs

from pipelines.shards.index import INDEX, MANIFEST, SHARDS, Index
from pipelines.storage.cache import (
    AT_ONCE,
    StoredFile,
    cache_key,
    cache_root,
    list_files,
    mirror,
    read_if_there,
    reading,
    writing,
)
from pipelines.storage.files import file_sha256, write_whole
from pipelines.storage.place import QUICK, Place
from pipelines.videos.kept_lists import LISTS
from vlmodels.errors import UserError

SPARE_BYTES = 2 << 30
SPARE_SHARE = 0.05
"""Free space, in bytes and as a part of the disk, below which shards of other data sets are removed; Ray stops spilling
objects to the disk at the same 5 %."""
USERS = ".users"
"""File that every process that reads the data set holds a shared lock on."""


def check_readable(uri: str) -> None:
    """Check, without waiting for long, that there is an ingested data set.

    Raises:
        UserError: there is no index, or the store cannot be reached.
    """
    place = Place.open(uri, attempts=QUICK)
    with reading(place):
        _require_index((place / INDEX).size() is not None, place)


class ShardCache:
    """An ingested data set in a store, and its copy on this machine, which several processes may use at once.

    Attributes:
        folder: the copy, with all small files; its ``shards/`` fills as shards are asked for.

    Raises:
        UserError: the store holds no finished ingest there, or it cannot be fetched.
    """

    def __init__(self, uri: str) -> None:
        self.place = Place.open(uri)
        with reading(self.place):
            content = read_if_there(self.place / INDEX)
            _require_index(content is not None, self.place)
        assert content is not None
        self.index = Index.parse(content, f"{self.place.uri}/{INDEX}")
        self._shards = {shard.file: shard for shard in self.index.shards}
        self.folder = cache_root() / "data" / cache_key(uri, content)
        self._register_use()
        self._fetch_manifest()
        mirror(self.place, self.folder, {"json", "csv"}, inside=[LISTS], skip=[INDEX])
        kept = self.folder / INDEX
        with writing(self.folder):
            if not kept.exists() or kept.read_bytes() != content:  # else its state stays: ``integrity``
                write_whole(kept, lambda path: path.write_bytes(content))

    def sizes(self) -> dict[str, int]:
        """Return the sizes (bytes) of the shards in the store, by name; it takes one listing."""
        return {name: info.size for name, info in list_files(self.place / SHARDS).items()}

    def cached(self, shard: str) -> bool:
        """Return whether the shard is on this machine."""
        return self._file(shard).is_there()

    def ready(self, shard: str) -> Path:
        """Return the shard's file on this machine, fetched if it is not there.

        Raises:
            UserError: it cannot be fetched, is damaged, or the disk is full.
        """
        file = self._file(shard)
        if not file.is_there():
            _make_room(self.folder.parent, file.size)
            file.fetch()
        return file.target

    def fetch(self, shards: Iterable[str]) -> None:
        """Fetch several shards side by side, in this order; errors as :meth:`ready`."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
            waiting = [pool.submit(self.ready, shard) for shard in dict.fromkeys(shards)]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _register_use(self) -> None:
        """Lock the copy against removal by other processes, and note the time."""
        with writing(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            held = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, held)
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held)  # its time of change says when the copy was used last

    def _fetch_manifest(self) -> None:
        manifest = self.place / MANIFEST
        path = self.folder / MANIFEST
        if path.exists() and file_sha256(path) == self.index.manifest_sha256:
            return
        path.unlink(missing_ok=True)  # damaged on this machine
        with reading(self.place):
            size = manifest.size()
        StoredFile(manifest, path, size or 0, self.index.manifest_sha256).fetch()

    def _file(self, name: str) -> StoredFile:
        shard = self._shards[name]
        return StoredFile(self.place / SHARDS / name, self.folder / SHARDS / name, shard.bytes, shard.sha256)


def _require_index(there: bool, place: Place) -> None:
    if there:
        return
    bucket = place.root.partition("/")[0]
    if place.uri.startswith("s3://") and place.filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
        raise UserError(f"{place.uri}: there is no bucket {bucket}; create it, or correct the name")
    raise UserError(f"{place.uri}: no {INDEX} in it; give a folder that pipelines/ingest.py made, copied there whole")


def _make_room(data: Path, needed: int) -> None:
    """Remove shards of data sets that no process reads, least recently used first, until the disk has free space."""

    def enough() -> bool:
        disk = shutil.disk_usage(data)
        return disk.free - needed >= max(SPARE_BYTES, SPARE_SHARE * disk.total)

    if enough():
        return
    for users in sorted(data.glob(f"*/{USERS}"), key=lambda path: path.stat().st_mtime):
        with users.open("r+b") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(users.parent / SHARDS, ignore_errors=True)
        if enough():
            return
