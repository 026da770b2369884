"""Open MLflow's stores, with patience that has an end and is announced; a SQLite store may have been moved.

What is away for a while (a server that does not answer, a SQLite file that another process holds) is waited for, and
then told in one line.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import logging
import os
import re
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from pipelines.config.record import redacted
from pipelines.storage.place import without_secrets
from vlmodels.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it counts copies from folder to folder

Value = TypeVar("Value")
Say = Callable[[str], None]

ARTIFACTS = "mlartifacts"
"""Folder of the artefacts, beside a SQLite store."""
PATIENCE_S = 60.0
PROBE_S = 5.0
_PAUSE_S = 1.0
_REQUESTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""MLflow's own patience is 7 attempts of 2 minutes, in silence."""
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
_OURS = re.compile(rf"(?P<scheme>file://)?(?P<old>/(?:.*/)?{ARTIFACTS})(?P<rest>/.*)?")
_PASSING = ("database is locked", "Max retries exceeded", "timed out", "Connection refused", "Connection reset")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; None for another store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def connect(uri: str, say: Say = print, *, patience_s: float = PATIENCE_S) -> Any:
    """Return a client of the store at ``uri``.

    A new SQLite store is created here, with its tables: docs/RAY.md#mlflow-on-sqlite. In one that was moved, the places
    of the artefacts are those beside it from now on.

    Raises:
        UserError: the server does not answer, or another process holds the store for too long.
    """
    for name, value in _REQUESTS.items():
        os.environ.setdefault(name, value)
    wait_for_answer(uri, say, patience_s=patience_s)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    file = sqlite_file(uri)
    if file is None:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _alone(file, say, patience_s):
        relocate(file)
        return patiently(lambda: _sqlite_client(uri), uri, say, patience_s=patience_s)


def _sqlite_client(uri: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)  # makes the tables, while no other process does
    client.search_registered_models(max_results=1)
    return client


def wait_for_answer(uri: str, say: Say = print, *, patience_s: float = PATIENCE_S) -> None:
    """Wait until the server at ``uri`` answers at all; other stores do at once.

    Raises:
        UserError: it does not.
    """
    began, told = time.monotonic(), False
    while not answers(uri):
        if not told:
            say(f"MLflow at {redacted(uri)} does not answer; trying for {patience_s:.0f} s")
            told = True
        left = patience_s - (time.monotonic() - began)
        if left <= 0:
            raise UserError(f"MLflow at {redacted(uri)} does not answer; start it, or correct --mlflow")
        time.sleep(min(_PAUSE_S, left))


def answers(uri: str, *, timeout_s: float = PROBE_S) -> bool:
    """Return whether the server at ``uri`` answers anything; True of other stores."""
    if not uri.startswith(("http://", "https://")):
        return True
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: the client itself verifies
    try:
        request = urllib.request.Request(f"{without_secrets(uri)}/health")  # noqa: S310 - the scheme is known
        urllib.request.urlopen(request, timeout=timeout_s, context=context).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


def patiently(call: Callable[[], Value], uri: str, say: Say = print, *, patience_s: float = PATIENCE_S) -> Value:
    """Return what ``call`` returns, which is tried again for a while if the store is held, or does not answer."""
    began, told = time.monotonic(), False
    while True:
        try:
            return call()
        except Exception as error:
            if not any(sign in str(error) for sign in _PASSING) or time.monotonic() - began >= patience_s:
                raise
            if not told:
                say(f"MLflow at {redacted(uri)} is busy ({first_line(error)[:80]}); trying for {patience_s:.0f} s")
                told = True
            time.sleep(_PAUSE_S)


@contextlib.contextmanager
def _alone(file: Path, say: Say, patience_s: float) -> Iterator[None]:
    """Keep other processes from opening the store: two that make the tables at once break them."""
    began, told = time.monotonic(), False
    with (file.parent / f".{file.name}.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - began
                if waited > patience_s:
                    raise UserError(
                        f"{file}: another process has been opening it for {waited:.0f} s; end that"
                    ) from None
                if waited > _PAUSE_S and not told:
                    say(f"waiting for another process that opens {file}")
                    told = True
                time.sleep(_PAUSE_S / 10)
                continue
            except OSError:
                pass  # a file system without locks
            break
        yield


def relocate(file: Path) -> None:
    """Let a SQLite store that was moved, or copied, find the artefacts that lie beside it now."""
    here = file.resolve().parent / ARTIFACTS
    with contextlib.suppress(sqlite3.Error):  # no such table, or read-only: MLflow says what it needs
        if not file.is_file():
            return
        with contextlib.closing(sqlite3.connect(file, timeout=PATIENCE_S)) as store, store:
            for table, column in _LOCATIONS:
                with contextlib.suppress(sqlite3.OperationalError):
                    known = store.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()  # noqa: S608 - ours
                    moved = [(new, old) for (old,) in known if (new := moved_location(old, here))]
                    store.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", moved)  # noqa: S608


def moved_location(location: str | None, here: Path) -> str | None:
    """Return the place below ``here`` of an artefact that lay in another ``mlartifacts``; None if it has not moved."""
    found = _OURS.fullmatch(location or "")
    if found is None:
        return None
    read = unquote if found["scheme"] else str
    old, rest = Path(read(found["old"])), read(found["rest"] or "")
    if old == here or (old.exists() and not Path(f"{here}{rest}").exists()):
        return None
    return f"{here.as_uri() if found['scheme'] else here}{found['rest'] or ''}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
