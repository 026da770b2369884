"""Ingested data that lies in a store, and its shards' copies on this machine."""

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
from pipelines.storage.files import write_whole
from pipelines.storage.place import QUICK, Place
from pipelines.videos.kept_lists import LISTS
from vlmodels.errors import UserError

SPARE_BYTES, SPARE_SHARE = 2 << 30, 0.05
"""Room on the disk below which other data sets' shards are removed: Ray stops spilling at 5 %."""
USERS = ".users"
"""Locked (shared) by every process that reads the data set."""


def check_readable(uri: str) -> None:
    """Look, without waiting for long, whether there is an ingested data set.

    Raises:
        UserError: there is none, or the store cannot be reached.
    """
    place = Place.open(uri, attempts=QUICK)
    with reading(place):
        _require_index((place / INDEX).size() is not None, place)


class ShardCache:
    """An ingested data set in a store, and its copy on this machine; one process of a kind that may be many.

    Attributes:
        folder: the copy, with all small files; ``shards/`` in it fills as shards are asked for.

    Raises:
        UserError: no finished ingest there, or it cannot be fetched.
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
        with writing(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            held = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, held)
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held)  # when it was used last
        manifest, path = self.place / MANIFEST, self.folder / MANIFEST
        if not path.exists():
            with reading(self.place):
                size = manifest.size()
            StoredFile(manifest, path, size or 0, self.index.manifest_sha256).fetch()
        mirror(self.place, self.folder, {"json", "csv"}, inside=[LISTS], skip=[INDEX])
        with writing(self.folder):
            write_whole(self.folder / INDEX, lambda path: path.write_bytes(content))

    def sizes(self) -> dict[str, int]:
        """Bytes of the shards that lie in the store, by their names; one listing."""
        return {name: info.size for name, info in list_files(self.place / SHARDS).items()}

    def cached(self, shard: str) -> bool:
        """Whether the shard is on this machine."""
        return self._file(shard).is_there()

    def ready(self, shard: str) -> Path:
        """The shard's file on this machine, fetched if it is not there.

        Raises:
            UserError: it cannot be fetched, is damaged, or the disk is full.
        """
        file = self._file(shard)
        if not file.is_there():
            _make_room(self.folder.parent, file.size)
            file.fetch()
        return file.target

    def fetch(self, shards: Iterable[str]) -> None:
        """Fetch several shards side by side, in this order; as :meth:`ready`."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as pool:
            waiting = [pool.submit(self.ready, shard) for shard in dict.fromkeys(shards)]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

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
    """Remove shards of data sets that no process reads, least recently used first, while the disk is nearly full."""

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
