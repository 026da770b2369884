"""The folder of a run, on any file system that pyarrow knows; a run that is there is whole.

``run.json`` is written last: a folder without it is no finished run. Model card and report may follow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from pipelines.records.kept import Kept, copy_in, local_copy
from pipelines.records.run_file import ADAPTER, RECORD, RunRecord, read
from pipelines.storage.files import file_sha256
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
            UserError: the record, or a file beside it, is damaged, or the record is of another run.
        """
        path = f"{self.root}/{name}/{RECORD}"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            try:
                record = read(stream, self.path(name), finite=True)
            except UserError as error:
                raise UserError(f"{error}; repeat the run with --fresh") from error
        if record.name != name or not record.classes:
            wrong = f"is of the run '{record.name[:100]}'" if record.name != name else "has no test set"
            raise UserError(f"{self.path(name)}: its {RECORD} {wrong}; repeat the run with --fresh")
        if problem := self._problem(record, name):
            raise UserError(f"{self.path(name)}/{problem}; copy the run again, or repeat it with --fresh")
        return record

    def _problem(self, record: RunRecord, name: str) -> str:
        """Return which file of a finished run is missing or has changed; "" if none. A store's are not read."""
        for file in record.files or (ADAPTER,):
            if not self.holds(name, file):
                return f"{file} is missing"
            wanted = record.files.get(file)
            if wanted and self.local and file_sha256(f"{self.root}/{name}/{file}") != wanted:
                return f"{file} is damaged: its SHA-256 is not the recorded one"
        return ""

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
        copy_in(self.filesystem, folder, target)
        temporary = f"{target}/.{RECORD}"
        with self.filesystem.open_output_stream(temporary) as stream:
            stream.write(content)
        self.filesystem.move(temporary, f"{target}/{RECORD}")
        self.give_up(name)

    def keep(self, folder: Path, name: str) -> None:
        """Keep a copy of ``folder`` as the checkpoint to continue from; the one before stays in case it is damaged."""
        self._kept(name).add(folder)

    def kept(
        self, name: str, damaged: Callable[[str], object] = lambda _: None
    ) -> contextlib.AbstractContextManager[Path | None]:
        """Provide the last whole folder that :meth:`keep` kept, on this machine; None without one.

        ``damaged`` gets a line for each that is not whole.

        Raises:
            DamagedCheckpointError: there are some, but none is whole.
        """
        return self._kept(name).newest(damaged)

    def _kept(self, name: str) -> Kept:
        place = f"{SCRATCH}/{name}"
        return Kept(self.filesystem, f"{self.root}/{place}", f"{self.uri}/{place}", self.local)

    def remember(self, file: str, text: str) -> None:
        """Write a small file about a run, beside the checkpoints."""
        self.filesystem.create_dir(self.scratch, recursive=True)
        with self.filesystem.open_output_stream(f"{self.scratch}/{file}") as stream:
            stream.write(text.encode())

    def recall(self, file: str) -> str | None:
        """Return what :meth:`remember` wrote; None if there is no such file."""
        path = f"{self.scratch}/{file}"
        if self.filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as stream:
            return str(stream.read(), "utf-8", "replace")

    def forget(self, file: str) -> None:
        """Remove what :meth:`remember` wrote, if it is there."""
        if self.filesystem.get_file_info(f"{self.scratch}/{file}").type == fs.FileType.File:
            self.filesystem.delete_file(f"{self.scratch}/{file}")

    def holds(self, name: str, file: str) -> bool:
        """Return whether the folder of the run ``name`` has a file."""
        return bool(self.filesystem.get_file_info(f"{self.root}/{name}/{file}").type == fs.FileType.File)

    def add(self, path: Path, name: str) -> None:
        """Add a file or folder of this machine to the folder of the run ``name``, unless it lies there."""
        if self.local:
            return
        target = f"{self.root}/{name}/{path.name}"
        if path.is_dir():
            copy_in(self.filesystem, path, target)
        else:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(path.read_bytes())

    def local_copy(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Provide the run's folder on this machine: itself, or a copy that is deleted afterwards."""
        return local_copy(self.filesystem, f"{self.root}/{name}", local=self.local)
