"""The folder of a run, on any file system that pyarrow knows; a run that is there is whole.

``run.json`` is written last: a folder without it is no finished run. Model card and report may follow.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from pipelines.records.run_file import RECORD, RunRecord, read
from pipelines.storage.place import SCRATCH, Place, check_writable
from vlmodels.errors import UserError


@dataclass(frozen=True)
class Home:
    """The folder of all runs of one ``out``."""

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
        """Folder on ``filesystem`` where Ray Train keeps checkpoints."""
        return f"{self.root}/{SCRATCH}"

    def path(self, name: str) -> str:
        """Return the path or URI of the run ``name``."""
        return f"{self.uri}/{name}"

    def finished(self, name: str) -> RunRecord | None:
        """Return the record of a finished run, or None.

        Raises:
            UserError: the record is damaged.
        """
        path = f"{self.root}/{name}/{RECORD}"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            try:
                return read(stream, self.path(name))
            except UserError as error:
                raise UserError(f"{error}; repeat the run with --fresh") from error

    def unfinished(self, name: str) -> bool:
        """Return whether there is a checkpoint to continue this run from."""
        return bool(self.filesystem.get_file_info(f"{self.root}/{SCRATCH}/{name}").type == fs.FileType.Directory)

    def discard(self, name: str) -> None:
        """Delete the run, finished or not."""
        self._drop(name)
        self.give_up(name)

    def give_up(self, name: str) -> None:
        """Delete the checkpoints of the run."""
        self._drop(f"{SCRATCH}/{name}")

    def _drop(self, path: str) -> None:
        if self.filesystem.get_file_info(f"{self.root}/{path}").type == fs.FileType.Directory:
            self.filesystem.delete_dir(f"{self.root}/{path}")

    def publish(self, folder: Path, name: str) -> None:
        """Copy a whole run folder into place, ``run.json`` last, and delete the run's checkpoints."""
        target = f"{self.root}/{name}"
        self._drop(name)
        record = folder / RECORD
        content = record.read_bytes()
        record.unlink()
        self._copy_in(folder, target)
        temporary = f"{target}/.{RECORD}"
        with self.filesystem.open_output_stream(temporary) as stream:
            stream.write(content)
        self.filesystem.move(temporary, f"{target}/{RECORD}")
        self.give_up(name)

    def keep(self, folder: Path, name: str) -> None:
        """Keep a copy of ``folder`` as the checkpoint to continue from, in place of the one before."""
        place = f"{self.root}/{SCRATCH}/{name}"
        before = self._latest(name)
        target = f"checkpoint-{int(before.rpartition('-')[2]) + 1 if before else 1}"
        if self.filesystem.get_file_info(f"{place}/{target}").type == fs.FileType.Directory:  # copying it was cut off
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
        """Provide the folder that :meth:`keep` kept last, on this machine; None without one."""
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

    def holds(self, name: str, file: str) -> bool:
        """Return whether the folder of the run ``name`` has a file."""
        return bool(self.filesystem.get_file_info(f"{self.root}/{name}/{file}").type == fs.FileType.File)

    def add(self, path: Path, name: str) -> None:
        """Add a file or folder of this machine to the folder of the run ``name``, unless it lies there."""
        if self.local:
            return
        target = f"{self.root}/{name}/{path.name}"
        if path.is_dir():
            self._copy_in(path, target)
        else:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(path.read_bytes())

    def local_copy(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Provide the run's folder on this machine: itself, or a copy that is deleted afterwards."""
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
