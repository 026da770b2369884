"""Folders and files on any file system that pyarrow or fsspec knows, with patience for a store that is away."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pyarrow import fs

from pipelines.storage.files import write_whole
from vlmodels.errors import UserError
from vlmodels.paths import absolute

PATIENT = 12
"""Attempts of S3's standard retries that outlast a store that is away for minutes."""
QUICK = 3
"""Attempts that find a wrong address within seconds."""
SCRATCH = ".ray"
"""Folder below that of the runs, for Ray's own snapshots and the checkpoints of unfinished runs."""
_OPTIONS = {"endpoint_override", "scheme", "region"}
"""Of the query of a URI of S3."""
_ADDRESS = re.compile(r"://(?:[^\s/'\"]*@)?([^\s?'\"<>]+)(?:\?[^\s'\"<>]+)?")
_SECRETS = {"access_key", "secret_key", "session_token"}
_MEANINGS = {
    "Bucket '": "there is no such bucket; create it, or correct the name",
    "NO_SUCH_BUCKET": "there is no such bucket; create it, or correct the name",
    "ACCESS_DENIED": "these credentials may not do this; see AWS_ACCESS_KEY_ID or the machine's role",
    "INVALID_ACCESS_KEY_ID": "the store does not know this key; see AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; see AWS_SECRET_ACCESS_KEY",
    "NETWORK_CONNECTION": "the store cannot be reached; see AWS_ENDPOINT_URL and the network",
    "No space left": "the disk is full",
    "File too large": "a file may not be so large here, see 'ulimit -f'",
    "Disk quota exceeded": "the quota is used up",
}


def is_uri(where: str | Path) -> bool:
    """Return whether this names a store rather than a local path."""
    return "://" in str(where) and not str(where).startswith("file://")


@dataclass(frozen=True)
class Place:
    """A folder or file: ``root`` on ``filesystem``; ``uri`` is its name for people, a path if it is local."""

    filesystem: fs.FileSystem
    root: str
    uri: str
    local: bool

    @classmethod
    def open(cls, where: str | Path, *, attempts: int = PATIENT) -> Place:
        """Open a local path or a URI (``s3://BUCKET/FOLDER``, ``gs://``, ``abfs://``, ``hdfs://``, or fsspec's).

        S3's endpoint and region are those of the URI's query (``?endpoint_override=HOST:PORT&scheme=http&region=R``),
        else of ``AWS_ENDPOINT_URL`` and ``AWS_REGION``. Nothing is read or written yet.

        Raises:
            UserError: there is no such kind of store, its driver is not installed, or the URI holds keys, which would
                be recorded with the run.
        """
        text = str(where)
        if not is_uri(text):
            path = unquote(text.removeprefix("file://")) if text.startswith("file://") else text
            root = str(absolute(path))
            return cls(fs.LocalFileSystem(), root, root, local=True)
        address = urlsplit(text)
        uri = without_secrets(text)
        query = dict(parse_qsl(address.query))
        if address.password or _SECRETS & query.keys():
            raise UserError(
                f"{uri}: keys in an address would be recorded with the run; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY (or the store's own variables) instead"
            )
        try:
            if address.scheme == "s3":
                return cls(_S3(_options(query), attempts), uri.removeprefix("s3://"), uri, local=False)
            filesystem, root = _other(text)
        except (OSError, ValueError, ImportError, TypeError) as error:
            raise UserError(f"{uri} cannot be opened: {error}") from error
        return cls(filesystem, root.rstrip("/"), uri, local=False)

    def __truediv__(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.root}/{name}", f"{self.uri}/{name}", self.local)

    def size(self) -> int | None:
        """Return the file's size in bytes; None if there is no such file."""
        info = self.filesystem.get_file_info(self.root)
        return int(info.size) if info.type == fs.FileType.File else None

    def is_dir(self) -> bool:
        """Return whether there is a folder of this name, or a file below it."""
        return bool(self.filesystem.get_file_info(self.root).type == fs.FileType.Directory)

    def read(self) -> bytes:
        """Return the file's content.

        Raises:
            OSError: the file cannot be read; ``FileNotFoundError`` if it is not there.
        """
        with self.filesystem.open_input_stream(self.root, compression=None) as stream:
            content: bytes = stream.read()
        return content

    def write(self, content: bytes) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        if self.local:
            write_whole(Path(self.root), lambda path: path.write_bytes(content))
            return
        with self.filesystem.open_output_stream(self.root) as stream:  # objects appear when they are whole
            stream.write(content)


def check_writable(out: str) -> None:
    """Write a small file to the folder of the runs, and remove it.

    Raises:
        UserError: the folder cannot be written to.
    """
    place = Place.open(out, attempts=QUICK)
    try:
        try_writing(place / SCRATCH)
    except OSError as error:
        raise UserError(f"runs cannot be written to {place.uri}: {why(error)}; or pass another --out") from error


def try_writing(folder: Place) -> None:
    """Create a folder, write a small file to it, and remove the file.

    Raises:
        OSError: one of these cannot be done.
    """
    folder.filesystem.create_dir(folder.root, recursive=True)
    probe = folder / f".writable-{socket.gethostname()}-{os.getpid()}"
    probe.write(b"1")
    folder.filesystem.delete_file(probe.root)


def without_secrets(uri: str) -> str:
    """Return a URI without user, password and query, for messages and records; a path as it is."""
    address = urlsplit(uri)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}".rstrip("/") if is_uri(uri) else uri


def without_signature(uri: str) -> str:
    """Return a URI for results, a path as it is: a query, which may be a signature, becomes a digest of it.

    So what is written lets nobody in, and two addresses that differ in their query alone still differ. User and
    password go; the options of S3's endpoint stay.
    """
    address = urlsplit(uri)
    if not is_uri(uri) or not (address.query or address.username or address.password or address.fragment):
        return uri
    if dict(parse_qsl(address.query)).keys() <= _OPTIONS:
        query = address.query
    else:
        query = f"redacted={hashlib.blake2b(address.query.encode(), digest_size=4).hexdigest()}"
    return urlunsplit(address._replace(netloc=address.netloc.rpartition("@")[2], query=query, fragment=""))


def why(error: Exception) -> str:
    """Return what went wrong with a store in few words, with the remedy where the cause is known; without keys."""
    text = " ".join(str(error).split()).replace(" To create buckets, enable the allow_bucket_creation option.", "")
    text = _ADDRESS.sub(r"://\1", text)
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return f"{meaning} ({text[:300]})"
    return text[:300]


class _S3(fs.S3FileSystem):  # type: ignore[misc]  # pyarrow is untyped here
    """S3 that is as patient in another process: pyarrow's own pickles lose their retries, and Ray pickles ours."""

    def __init__(self, options: dict[str, Any], attempts: int) -> None:
        self._opened = (options, attempts)
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=attempts)
        super().__init__(**options, retry_strategy=retries, connect_timeout=5, request_timeout=10)

    def __reduce__(self) -> tuple[type[_S3], tuple[dict[str, Any], int]]:
        return (_S3, self._opened)


def _options(query: dict[str, str]) -> dict[str, Any]:
    """Return endpoint and region: those of the query, else those of the environment."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options = {"endpoint_override": endpoint, "region": region}
    own = {key: value == "true" if value in ("true", "false") else value for key, value in query.items()}
    return {key: value for key, value in options.items() if value} | own


def _other(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (NotImplementedError, ValueError):  # not one of Arrow's own
        import fsspec

        wrapped, root = fsspec.core.url_to_fs(uri)
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(wrapped))
    return filesystem, str(root)
