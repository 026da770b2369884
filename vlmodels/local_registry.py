"""Find a registered model's folder in a registry on this machine without MLflow, whose import takes five seconds.

Only the plain case is read here: a SQLite file of a known form, and artefacts in a folder of this machine. For all
others, errors among them, ``local_model_folder`` returns None, and MLflow has the word.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

SCHEMA = "dc11669786a5"
"""The revision of MLflow's tables that is read here: that of MLflow 3.17."""

ARTIFACTS = "mlartifacts"
"""Folder of the artefacts, beside a SQLite store that this project made."""
_PLAIN = re.compile(r"models:/(?P<name>[^/@:?;#%]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@:?;#%]+))")
_VERSION_OF_ALIAS = """
    SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ? AND workspace = 'default'"""
_LOCATION = """
    SELECT COALESCE(NULLIF(storage_location, ''), source) FROM model_versions
    WHERE name = ? AND version = ? AND workspace = 'default' AND current_stage != 'Deleted_Internal'"""


def registry_file() -> Path | None:
    """Return the SQLite file of the registry that the environment names, which need not exist.

    None where MLflow has to be asked: the registry is of another kind, or a program that has imported MLflow may have
    chosen another one.
    """
    uri = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""
    elsewhere = {"mlflow", "pyspark"} & sys.modules.keys() or os.environ.get("MLFLOW_ENABLE_WORKSPACES")
    if elsewhere or not uri.startswith("sqlite:///") or re.search("[?%]", uri):
        return None
    return Path(uri.removeprefix("sqlite:///"))


def local_model_folder(uri: str) -> Path | None:
    """Return the folder that MLflow would download "models:/name@alias" or "models:/name/3" to; None: ask MLflow."""
    file, wanted = registry_file(), _PLAIN.fullmatch(uri)
    if file is None or wanted is None or not file.is_file():
        return None
    try:
        location = _location(file, **wanted.groupdict())
    except (sqlite3.Error, OverflowError):  # no such table or number, or a held file: MLflow waits, or says it better
        return None
    for folder in (_beside(file, location or ""), Path((location or "").removeprefix("file://"))):
        if folder.is_absolute() and "%" not in str(folder) and folder.is_dir():
            return folder
    return None


def local_version(uri: str) -> str | None:
    """Return the version that "models:/name@alias" stands for; None: ask MLflow."""
    file, wanted = registry_file(), _PLAIN.fullmatch(uri)
    if file is None or wanted is None or not file.is_file():
        return None
    try:
        with contextlib.closing(_open(file)) as store:
            if store.execute("SELECT version_num FROM alembic_version").fetchall() != [(SCHEMA,)]:
                return None
            found = store.execute(_VERSION_OF_ALIAS, (wanted["name"], wanted["alias"])).fetchone()
    except sqlite3.Error:
        return None
    return str(found[0]) if found else None


def _open(file: Path) -> sqlite3.Connection:
    """Open a store read-only: to look is not to migrate, and makes no file."""
    return sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)


def _beside(file: Path, location: str) -> Path:
    """Return the place of artefacts that lay in ``ARTIFACTS`` beside the store, which may have been moved since."""
    _, found, rest = location.partition(f"/{ARTIFACTS}/")
    return file.resolve().parent / ARTIFACTS / rest if found else Path()


def _location(file: Path, name: str, version: str | None, alias: str | None) -> str | None:
    """Return where a version's artefacts are, or None."""
    with contextlib.closing(_open(file)) as store:
        if store.execute("SELECT version_num FROM alembic_version").fetchall() != [(SCHEMA,)]:
            return None
        if version is None:
            aliased = store.execute(_VERSION_OF_ALIAS, (name, alias)).fetchone()
            version = aliased[0] if aliased else None
        row = None if version is None else store.execute(_LOCATION, (name, int(version))).fetchone()
        return row[0] if row else None
