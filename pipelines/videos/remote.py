"""Videos in a store: listed at once, and copied to this machine a few ahead of their decoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs

from pipelines.storage.place import QUICK, Place, why
from pipelines.storage.scratch import scratch
from pipelines.videos.file_tree import FileTree, tree_of
from vlmodels.errors import UserError

AHEAD = 4
"""Videos that are fetched while others are decoded."""

CHUNK = 4 << 20
"""Bytes that are read at once."""


@dataclass(frozen=True)
class StoredVideos:
    """All files below a folder of a store.

    Attributes:
        where: URI as the user wrote it, by which any machine opens it.
        uri: its name in messages.
        stats: bytes and time of change (ns) of each file, by its path below the folder.
    """

    where: str
    uri: str
    stats: dict[str, tuple[int, int]] = field(repr=False)

    @classmethod
    def below(cls, where: str) -> StoredVideos:
        """List the store, with a request for each thousand files; names with a leading dot are left out.

        Raises:
            UserError: it cannot be read, or there is nothing.
        """
        place = Place.open(where)
        try:
            Place.open(where, attempts=QUICK).is_dir()  # so that a wrong address fails soon
            infos = place.filesystem.get_file_info(fs.FileSelector(place.root, recursive=True))
        except FileNotFoundError:
            infos = []
        except OSError as error:
            raise UserError(f"{place.uri} cannot be read: {why(error)}") from error
        files = [(info.path[len(place.root) + 1 :], info) for info in infos if info.type == fs.FileType.File]
        stats = {path: (info.size, info.mtime_ns or 0) for path, info in files if "/." not in f"/{path}"}
        if not stats:
            raise UserError(f"{place.uri}: no such folder in the store, or nothing in it")
        return cls(where, place.uri, stats)

    def videos(self) -> list[str]:
        """Return the paths of the files that are videos by their suffix, sorted."""
        return list(self.tree().videos)

    def tree(self) -> FileTree:
        """Return the files, told apart by their suffixes alone."""
        return tree_of(self.stats)

    def why_not(self, path: str) -> str:
        """Return why there is no file at ``path``, where that is more than that nothing is there; else ""."""
        return "its key in the store is empty" if not path else ""

    def has(self, path: str) -> bool:
        """Return whether there is a file at ``path``."""
        return path in self.stats

    def __str__(self) -> str:
        return self.uri


class Copies(Sequence[str]):
    """Paths of copies of a batch's videos, in order: asking for one waits for it and starts to fetch the next ones.

    A video that is no longer in the store has no file at its path.

    Raises:
        UserError: (on asking) the store cannot be read.
        OSError: (on asking) the copy cannot be written.
    """

    def __init__(self, place: Place, paths: Sequence[str], folder: Path, pool: ThreadPoolExecutor) -> None:
        self._place = place
        self._paths = paths
        self._folder = folder
        self._pool = pool
        self._fetched: list[Future[str]] = []

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        for ahead in range(len(self._fetched), min(number + AHEAD, len(self))):
            self._fetched.append(self._pool.submit(self._fetch, ahead))
        return self._fetched[number].result()

    def _fetch(self, number: int) -> str:
        name = self._paths[number].rpartition("/")[2]
        target = self._folder / f"{number}-{name[-60:]}"  # keys may be longer than file names
        try:
            with target.open("wb") as file:
                for chunk in _chunks(self._place / self._paths[number]):
                    file.write(chunk)
        except FileNotFoundError:
            target.unlink(missing_ok=True)
        return str(target)


def _chunks(place: Place) -> Iterator[bytes]:
    try:
        with place.filesystem.open_input_stream(place.root, compression=None) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{place.uri} cannot be read: {why(error)}; run the same command again") from error


@contextmanager
def copies(where: str, paths: Sequence[str]) -> Iterator[Copies]:
    """Yield :class:`Copies` of the videos at ``paths`` below ``where``, and delete them at the end of the block."""
    with scratch("videos") as folder:
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
        try:
            yield Copies(Place.open(where), paths, folder, pool)
        finally:
            pool.shutdown(cancel_futures=True)
