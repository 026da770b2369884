"""Find the runs below folders, and read their records."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.records.run_file import PREDICTIONS, RECORD, RunRecord, read
from pipelines.storage.place import QUICK, Place, why
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from pyarrow import fs


DAMAGED = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is cut or foreign."""

_DEPTH = 4
_NO_RUNS = {"mlartifacts", "mlruns", "report", "checkpoints"}  # MLflow's copies of the same runs


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run and its folder; ``place`` is the folder's path or URI."""

    record: RunRecord
    filesystem: fs.FileSystem
    path: str
    place: str

    def predictions(self, say: Callable[[str], None] = print) -> dict[str, np.ndarray]:
        """Return scores and features of the test sets by name; {} if none were kept, or with a message if damaged."""
        import numpy as np
        from pyarrow import fs

        path = f"{self.path}/{PREDICTIONS}"
        try:
            if self.filesystem.get_file_info(path).type != fs.FileType.File:
                return {}
            with self.filesystem.open_input_stream(path) as stream:
                content = io.BytesIO(stream.read())
            with np.load(content, allow_pickle=False) as arrays:
                return dict(arrays)
        except DAMAGED as error:
            say(f"no pictures of {self.place}: its {PREDICTIONS} cannot be read ({error})")
            return {}


def read_runs(places: Sequence[str], say: Callable[[str], None] = print) -> list[Run]:
    """Return every finished run in and below ``places`` (paths or URIs), each once, by the time it ended.

    A record that cannot be used is named through ``say`` and left out; folders without ``run.json`` are unfinished
    runs and left out silently.

    Raises:
        UserError: a place does not exist.
    """
    found: dict[str, Run] = {}
    for place in places:
        for run in _below(place, say):
            found.setdefault(run.record.name, run)
    return sorted(found.values(), key=lambda run: (run.record.finished, run.record.name))


def _below(place: str, say: Callable[[str], None]) -> Iterator[Run]:
    opened = Place.open(place, attempts=QUICK)
    filesystem, root = opened.filesystem, opened.root
    try:
        exists = opened.is_dir()
    except OSError as error:
        raise UserError(f"runs cannot be read from {opened.uri}: {why(error)}; pass another --runs") from error
    if not exists:
        raise UserError(f"--runs {place}: no such folder; give the folder that a training script's --out named")
    for path in _folders(filesystem, root):
        shown = opened.uri + path.removeprefix(root)
        try:
            record = _tested(filesystem, path, shown)
        except UserError as error:
            say(f"skipped {error}")
        else:
            yield Run(record, filesystem, path, shown)


def _folders(filesystem: fs.FileSystem, root: str, depth: int = 0) -> Iterator[str]:
    """Yield folders with a ``run.json`` by name; folders below one are not searched."""
    from pyarrow import fs

    if filesystem.get_file_info(f"{root}/{RECORD}").type == fs.FileType.File:
        yield root
        return
    if depth == _DEPTH:
        return
    for info in sorted(filesystem.get_file_info(fs.FileSelector(root)), key=lambda info: info.path):
        if info.type == fs.FileType.Directory and not info.base_name.startswith(".") and info.base_name not in _NO_RUNS:
            yield from _folders(filesystem, info.path, depth + 1)


def _tested(filesystem: fs.FileSystem, path: str, shown: str) -> RunRecord:
    """Read the record of a run that has test scores."""
    try:
        stream = filesystem.open_input_stream(f"{path}/{RECORD}")
    except OSError as error:
        raise UserError(f"{shown}: its {RECORD} cannot be read ({error})") from error
    with stream:
        record = read(stream, shown, finite=True)
    if not record.classes:
        raise UserError(f"{shown}: its {RECORD} cannot be used (it has no test set)")
    return record


def newest_records(out: str, count: int) -> Iterator[RunRecord]:
    """Yield the records of the ``count`` folders in ``out`` that changed last, without those that cannot be used.

    Raises:
        OSError: ``out`` cannot be read.
        UserError: ``out`` is neither a path nor a URI.
    """
    from pyarrow import fs

    place = Place.open(out, attempts=QUICK)
    found = place.filesystem.get_file_info(fs.FileSelector(place.root, allow_not_found=True))
    folders = [info for info in found if info.type == fs.FileType.Directory and not info.base_name.startswith(".")]
    for info in sorted(folders, key=lambda info: info.mtime_ns or 0, reverse=True)[:count]:
        try:
            content = (place / f"{info.base_name}/{RECORD}").read()
        except FileNotFoundError:
            continue
        with contextlib.suppress(UserError):
            yield read(io.BytesIO(content), f"{place.uri}/{info.base_name}")
