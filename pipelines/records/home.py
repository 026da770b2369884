"""The folder that a run leaves, on any file system that pyarrow knows; present means whole.

``run.json`` is written last: a folder without it is no finished run.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.storage.place import SCRATCH, Place, check_writable


@dataclass(frozen=True)
class Home:
    """The place of all runs of one ``out``."""

    filesystem: fs.FileSystem
    root: str
    local: bool
    uri: str

    @classmethod
    def at(cls, out: str) -> Home:
        """Open ``out`` (path or URI) for writing.

        Raises:
            UserError: if it cannot be written.
        """
        check_writable(out)
        place = Place.open(out)
        return cls(place.filesystem, place.root, place.local, place.uri)

    @property
    def scratch(self) -> str:
        """Where on ``filesystem`` Ray Train keeps what it needs to go on."""
        return f"{self.root}/{SCRATCH}"

    def path(self, name: str) -> str:
        """Path or URI of the run ``name``."""
        return f"{self.uri}/{name}"

    def finished(self, name: str) -> dict[str, Any] | None:
        """The record of a finished run, or None."""
        path = f"{self.root}/{name}/run.json"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            record: dict[str, Any] = json.loads(stream.read())
        return record

    def unfinished(self, name: str) -> bool:
        """Whether something was kept to go on with this run."""
        return bool(self.filesystem.get_file_info(f"{self.root}/{SCRATCH}/{name}").type == fs.FileType.Directory)

    def discard(self, name: str) -> None:
        """Forget the run, finished or not."""
        self._drop(name)
        self.give_up(name)

    def give_up(self, name: str) -> None:
        """Forget what was kept to go on with the run."""
        self._drop(f"{SCRATCH}/{name}")

    def _drop(self, path: str) -> None:
        if self.filesystem.get_file_info(f"{self.root}/{path}").type == fs.FileType.Directory:
            self.filesystem.delete_dir(f"{self.root}/{path}")

    def publish(self, folder: Path, name: str) -> None:
        """Copy a whole run folder into place, ``run.json`` last, and drop what was kept to go on with it."""
        target = f"{self.root}/{name}"
        self._drop(name)
        record = folder / "run.json"
        held = record.read_bytes()
        record.unlink()
        self._copy_in(folder, target)
        temporary = f"{target}/.run.json"
        with self.filesystem.open_output_stream(temporary) as stream:
            stream.write(held)
        self.filesystem.move(temporary, f"{target}/run.json")
        self.give_up(name)

    def keep(self, folder: Path, name: str) -> None:
        """Keep a copy of ``folder`` to go on from, in place of the one that was kept before."""
        place = f"{self.root}/{SCRATCH}/{name}"
        before = self._latest(name)
        target = f"checkpoint-{int(before.rpartition('-')[2]) + 1 if before else 1}"
        if self.filesystem.get_file_info(f"{place}/{target}").type == fs.FileType.Directory:  # cut off while copying
            self.filesystem.delete_dir(f"{place}/{target}")
        self._copy_in(folder, f"{place}/{target}")
        with self.filesystem.open_output_stream(f"{place}/.latest") as stream:
            stream.write(target.encode())
        self.filesystem.move(f"{place}/.latest", f"{place}/latest")
        if before:
            self.filesystem.delete_dir(f"{place}/{before}")

    def _copy_in(self, folder: Path, target: str) -> None:
        self.filesystem.create_dir(target, recursive=True)
        fs.copy_files(
            str(folder), target, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem
        )

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[Path | None]:
        """What :meth:`keep` kept last, on this machine, or None."""
        latest = self._latest(name)
        if latest is None:
            yield None
            return
        with self._local(f"{SCRATCH}/{name}/{latest}") as folder:
            yield folder

    def _latest(self, name: str) -> str | None:
        path = f"{self.root}/{SCRATCH}/{name}/latest"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            latest: str = stream.read().decode()
        return latest

    def local_copy(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """The run's folder on this machine: itself, or a copy for as long as it is used."""
        return self._local(name)

    @contextlib.contextmanager
    def _local(self, path: str) -> Iterator[Path]:
        if self.local:
            yield Path(self.root) / path
            return
        with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
            target = Path(scratch) / Path(path).name
            target.mkdir()
            fs.copy_files(
                f"{self.root}/{path}",
                str(target),
                source_filesystem=self.filesystem,
                destination_filesystem=fs.LocalFileSystem(),
            )
            yield target
