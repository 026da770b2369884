"""Find the runs below folders, and read their records."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.records.check import problem
from pipelines.records.summary import Record
from pipelines.storage.place import QUICK, Place, why
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from pyarrow import fs


SCHEMA = 2
"""Version of ``run.json`` that is read."""

DAMAGED = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises of a file that is cut or foreign."""

_DEPTH = 4
_NO_RUNS = {"mlartifacts", "mlruns", "report", "checkpoints"}  # MLflow's copies of the same runs


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run where it lies."""

    record: Record
    filesystem: fs.FileSystem
    path: str
    place: str  # as a reader may open it: a path, or a URI

    def predictions(self, say: Callable[[str], None] = print) -> dict[str, np.ndarray]:
        """Scores and features of the test sets; nothing if they were not kept, or cannot be read, which is said."""
        import numpy as np
        from pyarrow import fs

        path = f"{self.path}/predictions.npz"
        try:
            if self.filesystem.get_file_info(path).type != fs.FileType.File:
                return {}
            with self.filesystem.open_input_stream(path) as stream:
                content = io.BytesIO(stream.read())
            with np.load(content, allow_pickle=False) as arrays:
                return dict(arrays)
        except DAMAGED as error:
            say(f"no pictures of {self.place}: its predictions.npz cannot be read ({error})")
            return {}


def read_runs(places: Sequence[str], say: Callable[[str], None] = print) -> list[Run]:
    """Every finished run in and below ``places`` (paths or URIs), each once, by the time it ended.

    What is no record that this version reads is named through ``say`` and left out; folders without ``run.json`` are
    unfinished runs and not spoken of.

    Raises:
        UserError: a place that is not there.
    """
    found: dict[str, Run] = {}
    for place in places:
        for run in _below(place, say):
            found.setdefault(run.record["name"], run)
    return sorted(found.values(), key=lambda run: (run.record["finished"], run.record["name"]))


def _below(place: str, say: Callable[[str], None]) -> Iterator[Run]:
    opened = Place.open(place, attempts=QUICK)
    filesystem, root = opened.filesystem, opened.root
    try:
        there = opened.is_dir()
    except OSError as error:
        raise UserError(f"runs cannot be read from {opened.uri}: {why(error)}; pass another --runs") from error
    if not there:
        raise UserError(f"--runs {place}: no such folder; give the folder that a training script's --out named")
    for path in _folders(filesystem, root):
        shown = opened.uri + path.removeprefix(root)
        record = _record(filesystem, path, shown, say)
        if record is not None:
            yield Run(record, filesystem, path, shown)


def _folders(filesystem: fs.FileSystem, root: str, depth: int = 0) -> Iterator[str]:
    """Folders with a ``run.json``, in order of their names; what lies below one is not looked at."""
    from pyarrow import fs

    if filesystem.get_file_info(f"{root}/run.json").type == fs.FileType.File:
        yield root
        return
    if depth == _DEPTH:
        return
    for info in sorted(filesystem.get_file_info(fs.FileSelector(root)), key=lambda info: info.path):
        if info.type == fs.FileType.Directory and not info.base_name.startswith(".") and info.base_name not in _NO_RUNS:
            yield from _folders(filesystem, info.path, depth + 1)


def _record(filesystem: fs.FileSystem, path: str, shown: str, say: Callable[[str], None]) -> Record | None:
    try:
        with filesystem.open_input_stream(f"{path}/run.json") as stream:
            record = json.loads(stream.read(), parse_constant=_refuse_constant)
        schema = record.get("schema")
    except (OSError, ValueError, AttributeError) as error:
        say(f"skipped {shown}: its run.json cannot be read ({error})")
        return None
    if schema != SCHEMA:
        age = "an older" if schema is None or (isinstance(schema, int) and schema < SCHEMA) else "a newer"
        say(f"skipped {shown}: written by {age} version (run.json has schema {schema}, this version reads {SCHEMA})")
        return None
    if unsound := problem(record):
        say(f"skipped {shown}: its run.json cannot be used ({unsound})")
        return None
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")
