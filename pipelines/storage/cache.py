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
_AGAIN = "copy it there again"


def cache_root() -> Path:
    """Where copies lie: ``$VIDADAPT_CACHE``, else ``~/.cache/vidadapt``."""
    return Path(os.environ.get("VIDADAPT_CACHE") or Path.home() / ".cache" / "vidadapt").absolute()


def local_file(where: str | Path) -> Path:
    """The file itself, or its copy if it lies in a store.

    Raises:
        UserError: it cannot be fetched.
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
    """The name of a run as it is, or the folder of its copy (what describes it, and its adapter) if it is in a store.

    Raises:
        UserError: it cannot be fetched, or there is nothing.
    """
    if not is_uri(where):
        return where
    place, folder = Place.open(where), cache_root() / "files" / cache_key(where)
    if not mirror(place, folder, {"json", "safetensors"}):
        raise UserError(f"{place.uri}: no run there; give the folder of one run")
    return str(folder)


@dataclass(frozen=True)
class StoredFile:
    """A file in a store and its copy; by hash where one is known, else by size and time."""

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
        """Copy it unless it is there.

        Raises:
            UserError: it cannot be read, is not what it should be, or cannot be written here.
        """
        if self.is_there():
            return
        part = self.target.with_name(f".{self.target.name}.part")
        with writing(self.target):
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
            raise UserError(f"{self.source.uri} is damaged: its SHA-256 is not the recorded one; {_AGAIN}")
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


def mirror(
    place: Place, folder: Path, kinds: Collection[str], *, inside: Collection[str] = (), skip: Collection[str] = ()
) -> bool:
    """Bring ``folder`` up to date with ``place``: its files of these ``kinds``, and all files ``inside`` subfolders.

    Files whose names are in ``skip`` are left as they are. Returns whether there are files at all.
    """
    files = {
        folder / name: info for name, info in list_files(place).items() if info.extension in kinds and name not in skip
    }
    for name in inside:
        wanted = {folder / name / file: info for file, info in list_files(place / name).items()}
        files |= wanted
        with contextlib.suppress(FileNotFoundError):
            for path in (folder / name).iterdir():
                if path not in wanted and path.suffix != ".part":
                    path.unlink(missing_ok=True)
    for path, info in files.items():
        source = place / path.relative_to(folder).as_posix()
        StoredFile(source, path, info.size, mtime_ns=info.mtime_ns).fetch()
    return bool(files)


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
def reading(place: Place) -> Iterator[None]:
    """Turn errors of a store into messages that name it."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{place.uri} cannot be read: {why(error)}; run the same command again, what is fetched is kept"
        ) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the local disk into messages that name the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; make room, or set VIDADAPT_CACHE to a folder on a "
            "larger disk"
        ) from error


def cache_key(uri: str, content: bytes = b"") -> str:
    """Return the name of the folder that holds copies from ``uri``."""
    return hashlib.sha256(f"{uri}\n{hashlib.sha256(content).hexdigest()}".encode()).hexdigest()[:16]
