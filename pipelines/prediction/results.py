"""Where the results of many videos go: a table, a folder of features, and a journal of what is done beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from pipelines.prediction.embeddings import Embedding, last_part, remove_parts, remove_rows, write_about, write_part
from pipelines.prediction.journal import Entry, Journal, Outdated
from pipelines.prediction.model import ModelFacts
from pipelines.prediction.progress import Progress
from pipelines.prediction.rows import FAILED, Row, write_csv, write_parquet
from pipelines.prediction.scoring import Scored
from pipelines.prediction.stored_features import ABOUT
from pipelines.storage.files import write_whole
from pipelines.storage.place import is_uri
from pipelines.videos.file_tree import shown
from vlmodels.errors import UserError
from vlmodels.paths import is_folder, is_there

TABLE = "predictions.parquet"
WRITTEN = "written.json"
"""In the journal's folder: size and time of the table, by which it is known again; of the earlier one, too."""
PART_ROWS = 1024
PART_S = 5.0
"""Rows of a part of features, and seconds after which fewer are written: what a kill costs."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The files of the results.

    Attributes:
        out: the table, ``.csv`` or ``.parquet``; None for none.
        embeddings: folder of features; None for none.
        overwrite: begin anew, whatever is there.
        retry: try videos again that have failed.
        work: folder of the journal; None for one beside the table, or in the folder of features.
    """

    out: Path | None
    embeddings: Path | None = None
    overwrite: bool = False
    retry: bool = False
    work: Path | None = None

    @classmethod
    def of(
        cls, out: str | None, embeddings: str | None = None, *, overwrite: bool = False, retry: bool = False
    ) -> Targets:
        """Return the targets of a command; a folder gets the table ``TABLE``.

        Raises:
            UserError: a place of no such kind.
        """
        for flag, given in (("--out", out), ("--embeddings", embeddings)):
            if given is not None and (is_uri(given) or not given):
                raise UserError(f"{flag} '{given}': name a file or folder of this machine, and copy it from there")
        table = None
        if out is not None:
            table = Path(out.removeprefix("file://"))
            if is_folder(table) or table.suffix.lower() not in (".csv", ".parquet"):
                if table.suffix and not is_folder(table):
                    raise UserError(f"--out {out}: choose .csv or .parquet, or a folder")
                table /= TABLE
        return cls(table, Path(embeddings) if embeddings else None, overwrite, retry)

    @property
    def journal(self) -> Path:
        """The folder of the journal."""
        if self.work is not None:
            return self.work
        if self.out is not None:
            return self.out.with_name(f".{self.out.name}.parts")
        assert self.embeddings is not None
        return self.embeddings / ".parts"

    @property
    def name(self) -> str:
        """What messages call the results."""
        return str(self.out or self.embeddings or "the answers")

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of all results."""
        return tuple(str(one) for one in (self.out, self.embeddings) if one is not None)

    def check(self) -> None:
        """Check that nothing of somebody else is there.

        Raises:
            UserError: there is.
        """
        if self.overwrite:
            return
        out, folder = self.out, self.embeddings
        if out is not None and is_there(out) and not self._is_ours(out):
            raise UserError(
                f"{out} is there already, and was not written by this command, or was changed since; choose another "
                "--out, or --overwrite it"
            )
        if folder is not None and any(folder.glob("part-*.arrow")) and not self.journal.is_dir():
            raise UserError(f"{folder} holds other features; choose another --embeddings, or --overwrite them")

    def _is_ours(self, out: Path) -> bool:
        try:
            known = json.loads((self.journal / WRITTEN).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(known, list) and _state(out) in known


@dataclass
class Results:
    """Takes scores as they come: features to their parts, then rows to the journal, which counts them as done."""

    targets: Targets
    journal: Journal
    facts: ModelFacts
    show: Callable[[Row], None] | None = None
    progress: Progress | None = None
    _waiting: list[Scored] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)
    _part: int = 0

    def take_over(self) -> int:
        """Keep what an earlier process has done; return the number of videos.

        Raises:
            UserError: the folder of the features does not say any more whose they are.
            OSError: journal or features cannot be read or written.
        """
        folder = self.targets.embeddings
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self.journal.read(retry=self.targets.retry, drop=self._drop)
        kept = len(self.journal)
        if folder is not None:
            if kept and not (folder / ABOUT).is_file():
                raise UserError(f"{folder} has lost its {ABOUT}; --overwrite to make the features again")
            self._write_about(folder, complete=False)
            self._part = last_part(folder) + 1
        return kept

    def _write_about(self, folder: Path, *, complete: bool) -> None:
        about = {name: value for name, value in asdict(self.facts).items() if name not in ("decision", "classes")}
        videos = len({one.name for one in self.journal.listing})
        write_about(folder, {**about, "videos": videos, "complete": complete})

    def _drop(self, outdated: Sequence[Outdated]) -> None:
        """Remove the features of what is done again, and of what a kill has left."""
        folder = self.targets.embeddings
        if folder is None:
            return
        remove_parts(folder, self.journal.parts)
        for number, same_part in groupby(sorted(outdated, key=_part_of), key=_part_of):
            if number >= 0:
                gone = {(shown(row.video), row.start, row.end) for one in same_part for row in one.rows}
                remove_rows(folder, number, gone)

    def add_known_failures(self) -> None:
        """Add the videos of which the listing knows that they cannot be read.

        Raises:
            OSError: their rows cannot be written.
        """
        listing, part = self.journal.listing, -1
        failures = [listing[index] for index in listing.failures() if not self.journal.has(index)]
        for video in failures:
            self._show(Row(video.name, status=FAILED, reason=video.reason))
        if self.targets.embeddings is not None and failures:
            part = self._write_part([Embedding(one.name, reason=one.reason) for one in failures])
        rows = [(one.index, Row(one.name, status=FAILED, reason=one.reason)) for one in failures]
        self.journal.add([Entry(index, (row,), part=part) for index, row in rows])

    def add(self, scored: Sequence[Scored]) -> None:
        """Take scores; those of a video's windows come all together.

        Raises:
            OSError: they cannot be written.
        """
        self._waiting += scored
        late = time.monotonic() - self._flushed > PART_S
        if self.targets.embeddings is None or len(self._waiting) >= PART_ROWS or late:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: it cannot be written.
        """
        waiting, self._waiting = self._waiting, []
        self._flushed = time.monotonic()
        if not waiting:
            return
        part = -1
        if self.targets.embeddings is not None:
            part = self._write_part([self._embedding(one) for one in waiting])
        entries = []
        for index, same_video in groupby(waiting, key=lambda one: one.look.index):
            scored = list(same_video)
            look = scored[0].look
            entries.append(Entry(index, tuple(map(self._row, scored)), look.bytes, look.mtime_ns, part))
        self.journal.add(entries)
        for entry in entries:
            for row in entry.rows:
                self._show(row)

    def write(self, topk: int) -> None:
        """Write the table of all videos, in the order of the listing, whole or not at all; no feature is missing now.

        Raises:
            OSError: it cannot be written.
        """
        if self.targets.embeddings is not None:
            self._write_about(self.targets.embeddings, complete=True)
        out = self.targets.out
        if out is None:
            return
        about = {"vidadapt": json.dumps(asdict(self.facts))}
        earlier = [_state(out)] if is_there(out) and not self.targets.overwrite else []

        def write(path: Path) -> None:
            rows: Iterable[Row] = self.journal.rows()
            if out.suffix.lower() == ".csv":
                write_csv(path, rows, topk)
            else:
                write_parquet(path, rows, about)
            # before the table is renamed: whenever a kill comes, the table that is there is known
            known = json.dumps([*earlier, _state(path)])
            write_whole(self.journal.folder / WRITTEN, lambda part: part.write_text(known))

        write_whole(out, write)

    def _show(self, row: Row) -> None:
        if self.show is not None:
            self.show(row)

    def _write_part(self, rows: Sequence[Embedding]) -> int:
        assert self.targets.embeddings is not None
        number, self._part = self._part, self._part + 1
        write_part(self.targets.embeddings, number, rows, self.facts.dim)
        return number

    def _embedding(self, scored: Scored) -> Embedding:
        look = scored.look
        video = self.journal.listing[look.index].name
        return Embedding(video, look.start, look.end, scored.feature, look.reason)

    def _row(self, scored: Scored) -> Row:
        look = scored.look
        video = self.journal.listing[look.index].name
        return Row(video, look.start, look.end, scored.status, scored.topk, look.seconds, look.reason)


def _state(table: Path) -> list[int]:
    found = table.stat()
    return [found.st_size, found.st_mtime_ns]


def _part_of(outdated: Outdated) -> int:
    return outdated.part
