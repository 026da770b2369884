"""The description store: one SQLite file that keeps every good answer, once, with where it came from."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_descriptions.budget import Past
from llm_descriptions.choose import Source, choose_sources
from llm_descriptions.errors import DescriptionError
from llm_descriptions.prompts import check_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FILE_NAME = "descriptions.sqlite"
_VERSION = 2
_WAIT_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS description (
    label TEXT NOT NULL, kind TEXT NOT NULL, prompt_id TEXT NOT NULL, model TEXT NOT NULL, n INTEGER NOT NULL,
    texts TEXT NOT NULL,
    origin TEXT NOT NULL, created TEXT NOT NULL, host TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (label, kind, prompt_id, model, n)
) WITHOUT ROWID
"""
# What format 1, which is read and brought up to date, did not have.
_ADDED = {
    "served_model": "TEXT NOT NULL DEFAULT ''",
    "calls": "INTEGER NOT NULL DEFAULT 0",
    "seconds": "REAL NOT NULL DEFAULT 0",
}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a set of descriptions answers: ``n`` texts of one kind for one class, by one prompt and model."""

    label: str
    kind: str
    prompt_id: str
    model: str
    n: int


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where texts came from: a server or, if ``origin`` is set, a published file.

    ``served_model``: what the server calls the model that answered; ``calls`` (failed ones too), tokens and
    ``seconds``, from the first call to the accepted answer, are those of this one question; ``created``: when
    the answer was accepted (UTC).
    """

    origin: str = ""
    host: str = ""
    served_model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    created: str = field(default_factory=_now)


class DescriptionStore:
    """Descriptions by key in the SQLite file ``path`` (WAL mode); made at the first ``put``.

    Every call opens and closes its own connection: a store object may be sent to other processes, several
    processes may write at once, and between calls the folder holds just the one file. Raises
    ``DescriptionError`` for a file that is no store, or cannot be read or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def get(self, key: Key) -> tuple[str, ...] | None:
        """Return the texts under ``key``, or None."""
        with self._reading() as connection:
            row = None if connection is None else _select(connection, key, "texts")
        return None if row is None else tuple(json.loads(row[0]))

    def provenance(self, key: Key) -> Provenance | None:
        """Return where the texts under ``key`` came from, or None if there are none."""
        with self._reading() as connection:
            if connection is None:
                return None
            names = [part.name for part in fields(Provenance)]
            if _version(connection) < _VERSION:
                names = [name for name in names if name not in _ADDED]
            row = _select(connection, key, ", ".join(names))
        return None if row is None else Provenance(**dict(zip(names, row, strict=True)))

    def past(self, *, prompt_id: str, model: str, host: str, n: int) -> Past | None:
        """Return what the stored answers of one prompt set, model and server took on average, or None."""
        with self._reading() as connection:
            if connection is None or _version(connection) < _VERSION:
                return None
            row = connection.execute(
                "SELECT count(*), avg(calls), avg(prompt_tokens), avg(completion_tokens), avg(seconds)"
                " FROM description WHERE prompt_id = ? AND model = ? AND host = ? AND n = ? AND calls > 0",
                (prompt_id, model, host, n),
            ).fetchone()
        return Past(*row) if row[0] else None

    def put(self, key: Key, texts: Sequence[str], provenance: Provenance) -> tuple[str, ...]:
        """Store ``texts`` and return what is stored: what came first under a key stays.

        Raises ``DescriptionError``, and stores nothing, unless the texts are a whole answer: exactly
        ``key.n`` distinct non-blank strings; from a published file, any number but none blank.
        """
        return self.put_all({key: texts}, provenance)[key]

    def put_all(self, entries: Mapping[Key, Sequence[str]], provenance: Provenance) -> dict[Key, tuple[str, ...]]:
        """Store many entries of one provenance, all or none; otherwise as ``put``.

        Texts of a published file that differ from those stored under the same key are an error.
        """
        for key, texts in entries.items():
            check_texts(key, texts, published=bool(provenance.origin))
        facts = asdict(provenance)
        with self._writing() as connection:
            for key, texts in entries.items():
                row = asdict(key) | facts | {"texts": json.dumps(list(texts), ensure_ascii=False)}
                names = ", ".join(row)
                marks = ", ".join(f":{name}" for name in row)
                # The names are this module's own; the values go through placeholders.
                connection.execute(
                    f"INSERT INTO description ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608
                    row,
                )
            stored = {key: self._texts(connection, key) for key in entries}
            other = [key.label for key, texts in entries.items() if stored[key] != tuple(texts)]
            if provenance.origin and other:
                raise DescriptionError(
                    f"{self.path} already holds other texts than {provenance.origin} for {len(other)} classes: "
                    f"{', '.join(other)}; delete it or choose another --out"
                )
            return stored

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep the file open, which makes each of many puts within about twenty times cheaper.

        SQLite cleans up when the last connection closes; this holds one until the end.
        """
        with self._writing():
            pass
        with self._reading() as connection:
            assert connection is not None
            yield

    def keys(self) -> list[Key]:
        """Return all keys, sorted."""
        with self._reading() as connection:
            if connection is None:
                return []
            rows = connection.execute("SELECT label, kind, prompt_id, model, n FROM description").fetchall()
        return sorted(Key(*row) for row in rows)

    def sources(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> dict[str, Source]:
        """Return, for each kind, the one source (prompt, model, n) from which ``bank`` takes its texts.

        A source counts if it matches what is given and has *every* label; sources are never mixed within a
        kind. Raises one ``DescriptionError`` naming all missing labels if none does, and one naming the
        sources if several do.
        """
        for kind in kinds:
            check_kind(kind)
        wanted = {"n": n, "model": model, "prompt_id": prompt_id}
        held: dict[str, dict[Source, set[str]]] = {kind: {} for kind in kinds}
        for key in self.keys():
            given = all(value is None or getattr(key, name) == value for name, value in wanted.items())
            if key.kind in held and given:
                source = Source(prompt_id=key.prompt_id, model=key.model, n=key.n)
                held[key.kind].setdefault(source, set()).add(key.label)
        return choose_sources(held, labels, where=self.path, wanted=wanted)

    def bank(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return ``{kind: {label: texts}}`` in the order of ``labels``, from one source a kind.

        A published class may hold fewer or more texts than ``n``. Raises as ``sources`` does.
        """
        chosen = self.sources(labels, kinds, n=n, model=model, prompt_id=prompt_id)
        with self._reading() as connection:
            assert connection is not None or not labels
            return {
                kind: {
                    label: self._texts(connection, Key(label, kind, source.prompt_id, source.model, source.n))
                    for label in labels
                }
                for kind, source in chosen.items()
            }

    def digest(
        self,
        labels: Sequence[str],
        kinds: Sequence[str],
        *,
        n: int | None = None,
        model: str | None = None,
        prompt_id: str | None = None,
    ) -> str:
        """Return the SHA-256 (hex) of what ``bank`` returns, whatever the order of labels and kinds."""
        bank = self.bank(labels, kinds, n=n, model=model, prompt_id=prompt_id)
        text = json.dumps(bank, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def _texts(connection: sqlite3.Connection | None, key: Key) -> tuple[str, ...]:
        assert connection is not None
        row = _select(connection, key, "texts")
        assert row is not None
        return tuple(json.loads(row[0]))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        if not self.path.is_file():
            yield None
            return
        # In a folder that cannot be written SQLite cannot make its lock file beside the store.
        mode = "mode=rw" if os.access(self.path.parent, os.W_OK) else "mode=ro&immutable=1"
        with self._errors("read"), closing(self._connect(f"{self.path.absolute().as_uri()}?{mode}")) as held:
            self._check_version(held)
            yield held

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._errors("write"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect(self.path.absolute().as_uri())) as connection:
                _set_wal(connection)
                # Survives the end of any process; only a power cut may cost the latest answers.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    connection.execute(_SCHEMA)
                    connection.execute("PRAGMA user_version = 1")
                self._check_version(connection)
                if _version(connection) < _VERSION:
                    for name, kind in _ADDED.items():
                        connection.execute(f"ALTER TABLE description ADD COLUMN {name} {kind}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")

    def _connect(self, uri: str) -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = _version(connection)
        if not 1 <= version <= _VERSION:
            raise DescriptionError(
                f"{self.path} is not a description store of format 1 or {_VERSION} (found {version}); "
                "move it away or choose another --out"
            )

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DescriptionError(
                f"cannot {verb} the description store {self.path}: {error}; "
                "check the file and the permissions of its folder, or choose another --out"
            ) from error


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _select(connection: sqlite3.Connection, key: Key, columns: str) -> tuple[Any, ...] | None:
    conditions = " AND ".join(f"{name} = :{name}" for name in asdict(key))
    query = f"SELECT {columns} FROM description WHERE {conditions}"  # noqa: S608 - own column names only
    row: tuple[Any, ...] | None = connection.execute(query, asdict(key)).fetchone()
    return row


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; while another process does the same, SQLite fails at once instead of waiting."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def check_texts(key: Key, texts: Sequence[str], *, published: bool) -> None:
    """Raise ``DescriptionError`` unless ``texts`` may be stored under ``key`` (see ``put``)."""
    check_kind(key.kind)
    name = f"the {key.kind} descriptions of '{key.label}'"
    if not key.label.strip() or key.n < 1:
        raise DescriptionError(f"a class name is blank or n is below 1: {key}")
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DescriptionError(f"{name} must be non-empty strings, got {list(texts)!r}")
    if published:
        return
    if len(texts) != key.n:
        raise DescriptionError(f"{name} must be {key.n} strings, got {len(texts)}")
    if len({" ".join(text.casefold().split()) for text in texts}) != len(texts):
        raise DescriptionError(f"{name} must be distinct, got {list(texts)!r}")
