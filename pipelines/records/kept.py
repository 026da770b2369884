"""Checkpoints of an unfinished run: the last one and the one before, each with the hashes of its files.

They lie in ``checkpoint-1``, ``checkpoint-2``, ...; ``checkpoint-2.json`` has the hashes, and comes when all is copied.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from pipelines.storage.files import file_sha256
from vlmodels.errors import UserError

_NAME = re.compile(r"checkpoint-(\d{1,9})")
_KEPT = 2


class DamagedCheckpointError(UserError):
    """No checkpoint of a run is whole; to try again would not help."""


@dataclass(frozen=True)
class Kept:
    """The checkpoints of a run, in the folder ``root`` of a file system; messages call it ``uri``."""

    filesystem: fs.FileSystem
    root: str
    uri: str
    local: bool

    def add(self, folder: Path) -> None:
        """Keep a copy of ``folder`` as the last checkpoint; of those before, one stays."""
        names = self._names()
        number = 1 + max((_number(name) for name in names), default=0)
        target = f"checkpoint-{number}"
        self._remove(target)  # copying it was cut off
        copy_in(self.filesystem, folder, f"{self.root}/{target}")
        self._write(f"{target}.json", json.dumps(_hashes(folder)))
        self._write("latest", target)
        for name in names:
            if _number(name) <= number - _KEPT:
                self._remove(name)

    @contextlib.contextmanager
    def newest(self, damaged: Callable[[str], object]) -> Iterator[Path | None]:
        """Provide the last whole checkpoint, on this machine; None without any.

        Args:
            damaged: gets a line for each that is not whole.

        Raises:
            DamagedCheckpointError: none is whole.
        """
        problems = []
        for name in self._names():
            with local_copy(self.filesystem, f"{self.root}/{name}", local=self.local) as folder:
                problem = self._problem(name, folder)
                if not problem:
                    yield folder
                    return
            problems.append(f"{self.uri}/{name}{problem}")
            damaged(problems[-1])
        if problems:
            raise DamagedCheckpointError(f"{problems[0]}; start the run over with --fresh")
        yield None

    def _problem(self, name: str, folder: Path) -> str:
        """Return which file of a checkpoint is not as it was written; "" if all are."""
        try:
            wanted = json.loads(self._read(f"{name}.json"))
            found = _hashes(folder)
        except (OSError, ValueError, RecursionError):
            return ".json is damaged"
        if not isinstance(wanted, dict):
            return ".json is damaged"
        for file in sorted(wanted.keys() | found.keys()):
            if file not in found:
                return f"/{file} is missing"
            if wanted.get(file) != found[file]:
                return f"/{file} is damaged"
        return ""

    def _names(self) -> list[str]:
        """Return the names of the checkpoints whose copy was whole, the last first."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.root, allow_not_found=True))
        names = [info.base_name.removesuffix(".json") for info in infos if info.base_name.endswith(".json")]
        return sorted(filter(_NAME.fullmatch, names), key=_number, reverse=True)

    def _read(self, file: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.root}/{file}") as stream:
            content: bytes = stream.read()
        return content

    def _write(self, file: str, text: str) -> None:
        with self.filesystem.open_output_stream(f"{self.root}/.{file}") as stream:
            stream.write(text.encode())
        self.filesystem.move(f"{self.root}/.{file}", f"{self.root}/{file}")

    def _remove(self, name: str) -> None:
        for path in (f"{self.root}/{name}.json", f"{self.root}/{name}"):
            found = self.filesystem.get_file_info(path).type
            if found == fs.FileType.File:
                self.filesystem.delete_file(path)
            elif found == fs.FileType.Directory:
                self.filesystem.delete_dir(path)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def copy_in(filesystem: fs.FileSystem, folder: Path, target: str) -> None:
    """Copy a folder of this machine to ``target``."""
    filesystem.create_dir(target, recursive=True)
    fs.copy_files(str(folder), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)


@contextlib.contextmanager
def local_copy(filesystem: fs.FileSystem, path: str, *, local: bool) -> Iterator[Path]:
    """Provide a folder on this machine: itself, or a copy that is deleted afterwards."""
    if local:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
        target = Path(scratch) / Path(path).name
        target.mkdir()
        fs.copy_files(path, str(target), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem())
        yield target
