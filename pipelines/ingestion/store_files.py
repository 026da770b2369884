"""The files of an ingest in a store: listed, uploaded, downloaded and removed by their names below its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from pipelines.storage.files import write_whole
from pipelines.storage.place import Place, why
from vlmodels.errors import UserError

AT_ONCE = 16
"""Small files moved at the same time; each takes a round trip or two."""
Thing = TypeVar("Thing")


class StoreFiles:
    """Files below a folder of a store. Every method raises ``UserError`` if the store cannot be reached."""

    def __init__(self, uri: str) -> None:
        self.place = Place.open(uri)

    def list_folder(self, folder: str) -> list[fs.FileInfo]:
        """List the files in a folder; nothing if there is no such folder."""
        with self._messages():
            selector = fs.FileSelector((self.place / folder).root, allow_not_found=True)
            infos = self.place.filesystem.get_file_info(selector)
        return [info for info in infos if info.type == fs.FileType.File]

    def find(self, files: Sequence[str]) -> list[fs.FileInfo]:
        """Return those of ``files`` that are there."""
        with self._messages():
            infos = self.place.filesystem.get_file_info([(self.place / file).root for file in files])
        return [info for info in infos if info.type == fs.FileType.File]

    def make_folders(self, folders: Iterable[str]) -> None:
        """Make folders where a store has such things."""
        with self._messages():
            for folder in folders:
                self.place.filesystem.create_dir((self.place / folder).root, recursive=True)

    def read(self, file: str) -> bytes | None:
        """Return the content of a file; None if there is no such file."""
        with self._messages():
            try:
                return (self.place / file).read()
            except FileNotFoundError:
                return None

    def write(self, file: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with self._messages():
            (self.place / file).write(content)

    def upload(self, path: Path, file: str) -> None:
        """Copy a local file into the store, whole or not at all."""
        with self._messages():
            fs.copy_files(
                str(path),
                (self.place / file).root,
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=self.place.filesystem,
            )

    def download(self, infos: Iterable[fs.FileInfo], folder: Path) -> None:
        """Copy listed files into a local folder, except those that are there with the same size and time."""
        at_once(partial(self._download, folder), infos)

    def _download(self, folder: Path, info: fs.FileInfo) -> None:
        target = folder / info.base_name
        if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (info.size, info.mtime_ns):
            return
        with self._messages(), self.place.filesystem.open_input_stream(info.path, compression=None) as stream:
            content = stream.read()
        write_whole(target, lambda path: path.write_bytes(content))
        if info.mtime_ns is not None:  # some stores keep no times
            os.utime(target, ns=(info.mtime_ns, info.mtime_ns))

    def remove(self, files: Collection[str]) -> None:
        """Remove files, several at a time; those that are not there are passed over."""
        at_once(self._remove, files)

    def _remove(self, file: str) -> None:
        with self._messages():
            try:
                self.place.filesystem.delete_file((self.place / file).root)
            except FileNotFoundError:
                return

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        with self._messages():
            try:
                self.place.filesystem.delete_dir((self.place / folder).root)
            except FileNotFoundError:
                return

    @contextmanager
    def _messages(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.place.uri}: {why(error)}; finished work is kept, the same command continues from there"
            ) from error


def at_once(do: Callable[[Thing], None], things: Iterable[Thing]) -> None:
    """Call ``do`` with each of ``things``, several at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(do, things))
