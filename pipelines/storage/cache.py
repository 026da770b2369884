"""Copies on this machine of files in a store: small files at once, shards whole when they are first read.

They lie below $VIDADAPT_CACHE (default: ~/.cache/vidadapt): ``data/KEY`` for an ingested data set and ``files/KEY`` for
the rest. A file is fetched under another name, checked by size and SHA-256, and renamed; a file that two processes want
is fetched once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pyarrow import fs

from pipelines.storage.place import Place, is_uri, why
from vlmodels.errors import UserError

AT_ONCE = 8
"""Files fetched side by side: one stream alone rarely fills a network."""
CHUNK = 8 << 20
"""Bytes of one request."""
RUN_FILES = ("json", "safetensors")
"""Extensions of the files by which a run is used: what describes it, and its adapter."""
_REMEDY = "copy the file to the store again"


def cache_root() -> Path:
    """Return the folder of all copies: ``$VIDADAPT_CACHE``, else ``~/.cache/vidadapt``."""
    return Path(os.environ.get("VIDADAPT_CACHE") or Path.home() / ".cache" / "vidadapt").absolute()


def cache_key(uri: str, content: bytes = b"") -> str:
    """Return the name of the folder that holds copies from ``uri``."""
    return hashlib.sha256(f"{uri}\n{hashlib.sha256(content).hexdigest()}".encode()).hexdigest()[:16]


def local_file(where: str | Path) -> Path:
    """Return a local file as it is; fetch a file of a store and return its copy.

    Raises:
        UserError: there is no such file in the store, or it cannot be fetched.
    """
    if not is_uri(where):
        return Path(where)
    place = Place.open(where)
    with reading(place):
        info = place.filesystem.get_file_info(place.root)
    if info.type != fs.FileType.File:
        raise UserError(f"{place.uri}: no such file")
    target = cache_root() / "files" / cache_key(str(where)) / info.base_name
    StoredFile(place, target, info.size, mtime_ns=info.mtime_ns).fetch()
    return target


def local_run(where: str) -> str:
    """Return a run's local name as it is; fetch a run of a store (``RUN_FILES``) and return the folder of its copy.

    Raises:
        UserError: there is no run in the store, or it cannot be fetched.
    """
    if not is_uri(where):
        return where
    place = Place.open(where)
    folder = cache_root() / "files" / cache_key(where)
    if not mirror(place, folder, RUN_FILES):
        raise UserError(f"{place.uri}: no run there; give the folder of one run")
    return str(folder)


def mirror(
    place: Place, folder: Path, kinds: Collection[str], *, inside: Collection[str] = (), skip: Collection[str] = ()
) -> bool:
    """Bring ``folder`` up to date with ``place``.

    Args:
        place: folder in a store.
        folder: its copy on this machine.
        kinds: extensions of the files that are copied.
        inside: subfolders that are copied whole; files that left them in the store are removed from the copy.
        skip: names of files that are left as they are.

    Returns:
        Whether ``place`` has any of these files.

    Raises:
        UserError: a file cannot be fetched.
    """
    files = {
        folder / name: info for name, info in list_files(place).items() if info.extension in kinds and name not in skip
    }
    for name in inside:
        wanted = {folder / name / file: info for file, info in list_files(place / name).items()}
        _remove_others(folder / name, wanted)
        files |= wanted
    for path, info in files.items():
        source = place / path.relative_to(folder).as_posix()
        StoredFile(source, path, info.size, mtime_ns=info.mtime_ns).fetch()
    return bool(files)


def _remove_others(folder: Path, wanted: Collection[Path]) -> None:
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path not in wanted and path.suffix != ".part":
                path.unlink(missing_ok=True)


def list_files(place: Place) -> dict[str, fs.FileInfo]:
    """List the files of a folder in a store, by name."""
    with reading(place):
        infos = place.filesystem.get_file_info(fs.FileSelector(place.root, allow_not_found=True))
    return {info.base_name: info for info in infos if info.type == fs.FileType.File}


def read_if_there(place: Place) -> bytes | None:
    """Return a file's content; None if there is no file."""
    try:
        return place.read()
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class StoredFile:
    """A file in a store and its copy, compared by SHA-256 where one is recorded, else by size and time."""

    source: Place
    target: Path
    size: int
    sha256: str = ""
    mtime_ns: int | None = None

    def is_there(self) -> bool:
        """Return whether the copy is there and current."""
        try:
            found = self.target.stat()
        except FileNotFoundError:
            return False
        return found.st_size == self.size and bool(self.sha256 or found.st_mtime_ns == self.mtime_ns)

    def fetch(self) -> None:
        """Fetch the copy unless it is there.

        Raises:
            UserError: the file cannot be read, has another size or SHA-256, or the copy cannot be written.
        """
        if self.is_there():
            return
        part = self.target.with_name(f".{self.target.name}.part")
        with writing(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(part) as file:
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
        digest = hashlib.sha256()
        size = 0
        file.truncate(0)  # a process that was killed may have left a part
        for chunk in self._chunks():
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        if size != self.size:
            raise UserError(f"{self.source.uri} has {size} bytes instead of {self.size}; {_REMEDY}")
        if self.sha256 and digest.hexdigest() != self.sha256:
            raise UserError(f"{self.source.uri} is damaged: its SHA-256 is not the recorded one; {_REMEDY}")
        os.fsync(file.fileno())
        if self.mtime_ns is not None:
            os.utime(file.fileno(), ns=(self.mtime_ns, self.mtime_ns))

    def _chunks(self) -> Iterator[bytes]:
        with (
            reading(self.source),
            self.source.filesystem.open_input_stream(self.source.root, compression=None) as stream,
        ):
            while chunk := stream.read(CHUNK):
                yield chunk


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open a file for one thread of all processes; the block must rename or remove it before it ends."""
    while True:
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), part.stat())
            except FileNotFoundError:
                same = False
            if same:  # else the holder before has renamed or removed it
                yield file
                return


@contextlib.contextmanager
def reading(place: Place) -> Iterator[None]:
    """Turn a store's errors into messages that name the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place.uri} cannot be read: {why(error)}; run the same command again, what is fetched is kept"
        ) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the local disk's errors into messages that name the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; make room, or set VIDADAPT_CACHE to a folder on a "
            "larger disk"
        ) from error
