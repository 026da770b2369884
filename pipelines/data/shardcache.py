"""Copies on this machine of what lies in a store: small files at once, shards whole when they are first read.

They lie below $VIDADAPT_CACHE (default: ~/.cache/vidadapt): ``data/KEY`` for an ingested data set and ``files/KEY`` for
the rest. A file is fetched under another name, compared with what it should be, and renamed; what two processes want is
fetched once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import weakref
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from pipelines.data.folder import INDEX, MANIFEST, SHARDS, Index, write_whole
from pipelines.data.keptlists import LISTS
from pipelines.storage import QUICK, Place, is_uri, why
from vlmodels.errors import UserError

AT_ONCE = 8
"""Files fetched side by side: one stream alone rarely fills a network."""
CHUNK = 8 << 20
"""Bytes of one request."""
SPARE_BYTES, SPARE_SHARE = 2 << 30, 0.05
"""Room on the disk below which other data sets' shards are removed: Ray stops spilling at 5 %."""
USERS = ".users"
"""Locked (shared) by every process that reads the data set."""
_AGAIN = "copy the ingested folder there again"


def cache_root() -> Path:
    """Where copies lie: ``$VIDADAPT_CACHE``, else ``~/.cache/vidadapt``."""
    return Path(os.environ.get("VIDADAPT_CACHE") or Path.home() / ".cache" / "vidadapt").absolute()


def check_readable(uri: str) -> None:
    """Look, without waiting for long, whether there is an ingested data set.

    Raises:
        UserError: there is none, or the store cannot be reached.
    """
    place = Place.open(uri, attempts=QUICK)
    with _named(place):
        _require_index((place / INDEX).size() is not None, place)


def local_file(where: str | Path) -> Path:
    """The file itself, or its copy if it lies in a store.

    Raises:
        UserError: it cannot be fetched.
    """
    if not is_uri(where):
        return Path(where)
    place = Place.open(where)
    with _named(place):
        info = place.filesystem.get_file_info(place.root)
    if info.type != fs.FileType.File:
        raise UserError(f"{place.uri}: no such file")
    target = cache_root() / "files" / _key(str(where)) / info.base_name
    _File(place, target, info.size, mtime_ns=info.mtime_ns).fetch()
    return target


def local_run(where: str) -> str:
    """The name of a run as it is, or the folder of its copy (what describes it, and its adapter) if it is in a store.

    Raises:
        UserError: it cannot be fetched, or there is nothing.
    """
    if not is_uri(where):
        return where
    place, folder = Place.open(where), cache_root() / "files" / _key(where)
    if not _mirror(place, folder, {"json", "safetensors"}):
        raise UserError(f"{place.uri}: no run there; give the folder of one run")
    return str(folder)


class ShardCache:
    """An ingested data set in a store, and its copy on this machine; one process of a kind that may be many.

    Attributes:
        folder: the copy, with all small files; ``shards/`` in it fills as shards are asked for.

    Raises:
        UserError: no finished ingest there, or it cannot be fetched.
    """

    def __init__(self, uri: str) -> None:
        self.place = Place.open(uri)
        with _named(self.place):
            content = _read(self.place / INDEX)
            _require_index(content is not None, self.place)
        assert content is not None
        self.index = Index.parse(content, f"{self.place.uri}/{INDEX}")
        self._shards = {shard.file: shard for shard in self.index.shards}
        self.folder = cache_root() / "data" / _key(uri, content)
        with _local_disk(self.folder):
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            held = os.open(self.folder / USERS, os.O_RDWR | os.O_CREAT, 0o666)
            weakref.finalize(self, os.close, held)
            fcntl.flock(held, fcntl.LOCK_SH)
            os.utime(held)  # when it was used last
        manifest, path = self.place / MANIFEST, self.folder / MANIFEST
        if not path.exists():
            with _named(self.place):
                size = manifest.size()
            _File(manifest, path, size or 0, self.index.manifest_sha256).fetch()
        _mirror(self.place, self.folder, {"json", "csv"}, LISTS)
        with _local_disk(self.folder):
            write_whole(self.folder / INDEX, lambda path: path.write_bytes(content))

    def sizes(self) -> dict[str, int]:
        """Bytes of the shards that lie in the store, by their names; one listing."""
        return {name: info.size for name, info in _listed(self.place / SHARDS).items()}

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

    def _file(self, name: str) -> _File:
        shard = self._shards[name]
        return _File(self.place / SHARDS / name, self.folder / SHARDS / name, shard.bytes, shard.sha256)


@dataclass(frozen=True)
class _File:
    """A file in a store and its copy; by hash where one is known, else by size and time."""

    source: Place
    target: Path
    size: int
    sha256: str = ""
    mtime_ns: int | None = None

    def is_there(self) -> bool:
        try:
            found = self.target.stat()
        except FileNotFoundError:
            return False
        return found.st_size == self.size and bool(self.sha256 or found.st_mtime_ns == self.mtime_ns)

    def fetch(self) -> None:
        """Copy it unless it is there.

        Raises:
            UserError: it cannot be read, is not what it should be, or cannot be written here.
        """
        if self.is_there():
            return
        part = self.target.with_name(f".{self.target.name}.part")
        with _local_disk(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(part) as file:
                try:
                    if not self.is_there():  # another process may have fetched it meanwhile
                        self._copy(file)
                        part.replace(self.target)
                        return
                except BaseException:
                    part.unlink()
                    raise
                part.unlink()

    def _copy(self, file: BinaryIO) -> None:
        digest, done = hashlib.sha256(), 0
        file.truncate(0)  # of a process that was killed
        for chunk in self._chunks():
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
        file.flush()
        if done != self.size:
            raise UserError(f"{self.source.uri} has {done} bytes instead of {self.size}; {_AGAIN}")
        if self.sha256 and digest.hexdigest() != self.sha256:
            raise UserError(f"{self.source.uri} is damaged: its SHA-256 is not that of {INDEX}; {_AGAIN}")
        os.fsync(file.fileno())
        if self.mtime_ns is not None:
            os.utime(file.fileno(), ns=(self.mtime_ns, self.mtime_ns))

    def _chunks(self) -> Iterator[bytes]:
        with (
            _named(self.source),
            self.source.filesystem.open_input_stream(self.source.root, compression=None) as stream,
        ):
            while chunk := stream.read(CHUNK):
                yield chunk


def _mirror(place: Place, folder: Path, kinds: Collection[str], *inside: str) -> bool:
    """Bring ``folder`` up to date with files of these ``kinds`` in ``place`` and all ``inside``; False: none."""
    files = {folder / name: info for name, info in _listed(place).items() if info.extension in kinds}
    files.pop(folder / INDEX, None)
    for name in inside:
        listed = {folder / name / file: info for file, info in _listed(place / name).items()}
        files |= listed
        with contextlib.suppress(FileNotFoundError):
            for path in (folder / name).iterdir():
                if path not in listed and path.suffix != ".part":
                    path.unlink(missing_ok=True)
    for path, info in files.items():
        source = place / path.relative_to(folder).as_posix()
        _File(source, path, info.size, mtime_ns=info.mtime_ns).fetch()
    return bool(files)


def _listed(place: Place) -> dict[str, fs.FileInfo]:
    with _named(place):
        infos = place.filesystem.get_file_info(fs.FileSelector(place.root, allow_not_found=True))
    return {info.base_name: info for info in infos if info.type == fs.FileType.File}


def _read(place: Place) -> bytes | None:
    try:
        return place.read()
    except FileNotFoundError:
        return None


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


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """Open a file that one thread of all processes has; it must be renamed or removed before it is let go."""
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                same = False
            if same:  # else the one before has renamed it
                yield file
                return


@contextlib.contextmanager
def _named(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place.uri} cannot be read: {why(error)}; run the same command again, what is fetched is kept"
        ) from error


@contextlib.contextmanager
def _local_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; make room, or set VIDADAPT_CACHE to a folder on a "
            "larger disk"
        ) from error


def _key(uri: str, content: bytes = b"") -> str:
    return hashlib.sha256(f"{uri}\n{hashlib.sha256(content).hexdigest()}".encode()).hexdigest()[:16]
