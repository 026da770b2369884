"""The SQLite file of a description store: its table, its versions, and connections to it."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from llm_descriptions.errors import DescriptionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VERSION = 2
_LOCK_TIMEOUT_S = 60.0
_READ_LIMIT_S = 120.0
"""A view or a trigger of a foreign file may have no end; a store is read within seconds."""
_STEPS = 100_000  # of SQLite's machine between two looks at the clock
_SCHEMA = """
CREATE TABLE IF NOT EXISTS description (
    label TEXT NOT NULL, kind TEXT NOT NULL, prompt_id TEXT NOT NULL, model TEXT NOT NULL, n INTEGER NOT NULL,
    texts TEXT NOT NULL,
    origin TEXT NOT NULL, created TEXT NOT NULL, host TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (label, kind, prompt_id, model, n)
) WITHOUT ROWID
"""
_COLUMNS = {"label", "kind", "prompt_id", "model", "n", "texts", "origin", "created", "host"} | {
    "prompt_tokens",
    "completion_tokens",
}
REMEDY = "move it away or choose another --out"
# Columns that format 1 lacks; a write adds them.
NEW_COLUMNS = {
    "served_model": "TEXT NOT NULL DEFAULT ''",
    "calls": "INTEGER NOT NULL DEFAULT 0",
    "seconds": "REAL NOT NULL DEFAULT 0",
}


class Database:
    """Connections to the file ``path`` (WAL mode), each opened and closed by itself.

    Every method raises ``DescriptionError`` if the file is not a store, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Open the store to read; None if there is no file."""
        if not self._exists("read"):
            yield None
            return
        # In a read-only folder SQLite cannot create its lock file, and needs ``immutable`` to read without one.
        mode = "mode=rw" if os.access(self._path.parent, os.W_OK) else "mode=ro&immutable=1"
        with self._errors("read"), closing(self._connect(f"{self._path.absolute().as_uri()}?{mode}")) as connection:
            self._check_version(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open the store for one transaction, which is undone if the block raises; make the file if there is none."""
        self._exists("write")
        with self._errors("write"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect(self._path.absolute().as_uri())) as connection:
                _set_wal(connection)
                # Answers survive the end of a process; only a power cut can lose the latest.
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                self._create_or_upgrade(connection)
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")

    def _exists(self, verb: str) -> bool:
        """Return whether there is a file; what is there and no file is an error."""
        try:
            with self._errors(verb):
                mode = self._path.stat().st_mode
        except DescriptionError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                return False
            raise
        if not stat.S_ISREG(mode):
            raise DescriptionError(f"{self._path} is no file, and so no description store; {REMEDY}")
        return True

    def _create_or_upgrade(self, connection: sqlite3.Connection) -> None:
        """Create the table in a new file, and add the columns that an older format lacks."""
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.execute(_SCHEMA)
            connection.execute("PRAGMA user_version = 1")
        self._check_version(connection)
        if _version(connection) < _VERSION:
            for name, column_type in NEW_COLUMNS.items():
                connection.execute(f"ALTER TABLE description ADD COLUMN {name} {column_type}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _connect(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
        deadline = time.monotonic() + _READ_LIMIT_S
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = _version(connection)
        if not 1 <= version <= _VERSION:
            raise DescriptionError(
                f"{self._path} is not a description store of format 1 or {_VERSION} (found {version}); {REMEDY}"
            )
        if problem := _foreign(connection):
            raise DescriptionError(f"{self._path} is not a description store ({problem}); {REMEDY}")

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnicodeError) as error:
            raise DescriptionError(
                f"cannot {verb} the description store {self._path}: {error}; "
                "check the file and the permissions of its folder, or choose another --out"
            ) from error


def is_current(connection: sqlite3.Connection) -> bool:
    """Return whether the file has ``NEW_COLUMNS``."""
    return _version(connection) >= _VERSION


def _foreign(connection: sqlite3.Connection) -> str:
    """Return what in a file is not of a store; "" if nothing is. Nothing but the list of its parts is read."""
    parts = connection.execute("SELECT type, sql FROM sqlite_master WHERE tbl_name = 'description'").fetchall()
    tables = [sql for kind, sql in parts if kind == "table"]
    if len(tables) != 1 or not str(tables[0]).upper().startswith("CREATE TABLE"):
        return "it has no table of descriptions"
    if others := sorted({kind for kind, _ in parts} - {"table", "index"}):
        return f"it has a {others[0]}"
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(description)")}
    wanted = _COLUMNS | (NEW_COLUMNS.keys() if _version(connection) >= _VERSION else set())
    missing = sorted(wanted - columns)
    return f"its table has no column {missing[0]}" if missing else ""


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _set_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode; while another process does the same, SQLite fails at once, so this function retries."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
