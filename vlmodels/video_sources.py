"""Videos as strings: a path, an address or base64, each with a limit and a permission, as a file on this machine."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from vlmodels.bounded_copy import copy_within
from vlmodels.errors import UserError, shortened, unprintable
from vlmodels.paths import absolute, is_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INPUTS = "VIDADAPT_INPUTS"
"""Environment variable: what may be read, of base64, files, uris, and addresses or folders that end with a slash."""
MOST_MB = "VIDADAPT_MAX_MB"
"""Environment variable: the largest video (MB) that is decoded from base64 or fetched."""

_KINDS = ("base64", "files", "uris")
_STORES = ("http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "hf")
"""Schemes that never lead to a file of this machine; fsspec has many that do."""
_SERVERS = ("__pyfunc_model_path__", "IS_IN_DB_MODEL_SERVING_ENV", "MLSERVER_MODEL_NAME", "MLSERVER_MODEL_URI")
"""Variables in the environment of MLflow's scoring server, Databricks' and MLServer."""
_SHORTEST_BASE64 = 256
"""Characters of the shortest bare base64: no video is that small, and few paths without a dot are that long."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_TIMEOUT_S = 30.0
"""Seconds that a source may be silent."""


@dataclass(frozen=True)
class VideoSources:
    """What may be read, and how much of it.

    Attributes:
        allowed: of base64, files and uris, and addresses or folders that end with a slash.
        most_bytes: of a video that is decoded from base64 or fetched.
        most_seconds: of fetching a video.
    """

    allowed: tuple[str, ...] = _KINDS
    most_bytes: int = 512 << 20
    most_seconds: float = 300.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> VideoSources:
        """Return what ``VIDADAPT_INPUTS`` and ``VIDADAPT_MAX_MB`` say.

        By default everything may be read, and in a model server base64 alone: whoever can send a request would else
        have it open files of its machine and addresses of its network.

        Raises:
            UserError: one of them has a value that means nothing.
        """
        served = any(name in environment for name in _SERVERS)
        text = environment.get(INPUTS, "base64" if served else ",".join(_KINDS))
        allowed = tuple(filter(None, (part.strip() for part in text.split(","))))
        if wrong := [part for part in allowed if part not in _KINDS and not part.endswith("/")]:
            raise UserError(
                f"{INPUTS}: '{shortened(wrong[0])}' is none of {', '.join(_KINDS)}, nor an address or a folder that "
                "ends with a slash (https://videos.example.com/, s3://BUCKET/, /data/videos/)"
            )
        try:
            most = float(environment.get(MOST_MB, cls.most_bytes >> 20))
            return cls(allowed, int(most * (1 << 20)))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{MOST_MB}={shortened(environment[MOST_MB])} is no number of megabytes") from error

    @contextlib.contextmanager
    def file(self, source: object) -> Iterator[tuple[Path, str]]:
        """Yield a video's file, or folder of pictures, and its name for messages; a copy is deleted after the block.

        Args:
            source: path, ``file://`` or another address, or content in base64, with or without ``data:``.

        Raises:
            UserError: it is no text, may not be read, is too large, or cannot be read.
        """
        if isinstance(source, bytes) or (isinstance(source, str) and _is_base64(source)):
            with self._temporary("base64") as path:
                path.write_bytes(self._decoded(source))
                yield path, "the base64 video"
            return
        if not isinstance(source, str) or not source.strip():
            raise UserError(f"an input is a path, an address or base64, not {_kind_of(source)}")
        if "://" not in source or source.startswith("file://"):
            yield self._allowed_path(source), shortened(source)
            return
        name = _shown(source)
        self._check_uri(source, name)
        with self._temporary(name) as path:
            self._fetch(source, name, path)
            yield path, name

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        suffix = re.sub(r"[^.\w]", "", Path(name).suffix)[:8]
        with tempfile.TemporaryDirectory(prefix="vidadapt-") as folder:
            yield Path(folder) / f"video{suffix}"

    def _decoded(self, source: str | bytes) -> bytes:
        if "base64" not in self.allowed:
            raise UserError(_refusal("base64 is", self.allowed))
        if isinstance(source, bytes):
            self._check_size(len(source), "the video")
            return source
        head, comma, rest = source.partition(",") if source.startswith("data:") else ("", ",", source)
        if not comma or (head and not head.endswith(";base64")):
            raise UserError("a data: address must hold base64 (data:video/mp4;base64,...)")
        self._check_size(len(rest) * 3 // 4, "the base64 video")
        plain = "".join(rest.split()).translate(str.maketrans("-_", "+/"))
        try:
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UserError(f"the base64 video is damaged ({error}); send it again") from error

    def _check_size(self, size: int, name: str) -> None:
        if size > self.most_bytes:
            raise self._too_large(name)

    def _too_large(self, name: str) -> UserError:
        return UserError(
            f"{name} has more than {self.most_bytes / (1 << 20):g} MB; cut it, or raise {MOST_MB} where it is read"
        )

    def _allowed_path(self, source: str) -> Path:
        if character := unprintable(source):
            raise UserError(f"the path holds the character {character}")
        path = Path(unquote(source.removeprefix("file://")) if source.startswith("file://") else source)
        folders = [Path(part) for part in self.allowed if part.endswith("/") and "://" not in part]
        real = absolute(path)
        if "files" not in self.allowed and not any(real.is_relative_to(absolute(folder)) for folder in folders):
            raise UserError(_refusal("files of this machine are", self.allowed))
        if not is_there(path):
            raise UserError(f"{shortened(str(path))}: there is no such file")
        return path

    def _check_uri(self, uri: str, name: str) -> None:
        scheme = uri.partition("://")[0].lower()
        if character := unprintable(uri):
            raise UserError(f"the address holds the character {character}")
        rests = [uri.removeprefix(part) for part in self.allowed if "://" in part and uri.startswith(part)]
        if "uris" not in self.allowed and not (rests and not _STRANGE.search(unquote(min(rests, key=len)))):
            raise UserError(_refusal("addresses are", self.allowed))
        if scheme not in _STORES and "files" not in self.allowed:  # fsspec's may lead to files of this machine
            raise UserError(f"{name}: addresses of {scheme}:// are not read here; use one of {', '.join(_STORES)}")

    def _fetch(self, uri: str, name: str, path: Path) -> None:
        """Copy what is at an address to ``path``, within the limits of size and time."""
        connections = _Connections()
        try:
            with path.open("wb") as file:
                copy_within(
                    lambda: _opened(uri, connections, follow="uris" in self.allowed),
                    file,
                    most=self.most_bytes,
                    too_large=self._too_large(name),
                    seconds=self.most_seconds,
                    too_slow=UserError(f"{name} was not whole after {self.most_seconds:g} s"),
                    cut=connections.cut,
                )
        except UserError:
            raise
        except Exception as error:  # each store has its own
            reason = " ".join(str(error).split())[:200].replace(uri, name) or type(error).__name__
            raise UserError(f"{name} cannot be fetched: {reason}") from error


_STRANGE = re.compile(r"[?#\\]|(^|/)\.\.?(/|$)|//")
"""Not behind an allowed prefix: a query may name another endpoint of the store, the rest may lead out of the prefix."""


def _is_base64(text: str) -> bool:
    if text.startswith("data:"):
        return True
    return len(text) >= _SHORTEST_BASE64 and "." not in text and _BASE64.fullmatch(text) is not None


def _kind_of(source: object) -> str:
    if source is None or source != source:  # noqa: PLR0124 - NaN stands for a missing text in pandas
        return "nothing"
    return "an empty text" if isinstance(source, str) else f"a value of type {type(source).__name__}"


def _refusal(what: str, allowed: tuple[str, ...]) -> str:
    return f"{what} not read here ({INPUTS} allows {', '.join(allowed) or 'nothing'}); send base64, or ask who runs it"


def _shown(uri: str) -> str:
    """Return an address without user, password and query, which may be keys."""
    parts = urlsplit(uri)
    return shortened(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


class _Connections:
    """The sockets of a fetch over http, so that another thread can end what waits for them: a header or a redirect."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._are_cut = False

    def handler(self, kind: type) -> Any:
        """Return one of urllib's handlers of ``kind`` whose connections are kept here."""
        connections = self

        class Handler(kind):  # type: ignore[misc]  # one of two
            def do_open(self, http_class: Any, req: Any, **options: Any) -> Any:
                class Connection(http_class):  # type: ignore[misc]
                    def connect(self) -> None:
                        super().connect()
                        connections._keep(self.sock)

                return super().do_open(Connection, req, **options)

        return Handler()

    def _keep(self, one: socket.socket) -> None:
        self._sockets.append(one)
        if self._are_cut:
            self.cut()

    def cut(self) -> None:
        """End all reads, now and later."""
        self._are_cut = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _opened(uri: str, connections: _Connections, *, follow: bool) -> Iterator[Any]:
    """Open an address for reading; of http, redirects are followed to http alone, and only if asked."""
    if uri.lower().startswith(("http://", "https://")):
        from urllib import request

        opener = request.OpenerDirector()  # not build_opener, which reads files and ftp too
        handlers = [request.ProxyHandler, request.HTTPErrorProcessor, request.HTTPDefaultErrorHandler]
        for handler in [*handlers, *([request.HTTPRedirectHandler] if follow else [])]:
            opener.add_handler(handler())
        for kind in (request.HTTPHandler, request.HTTPSHandler):
            opener.add_handler(connections.handler(kind))
        with opener.open(uri, timeout=_TIMEOUT_S) as response:
            yield response
        return
    from pyarrow import fs

    try:
        if uri.startswith("s3://"):
            keys = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
            endpoint = next((os.environ[key] for key in keys if os.environ.get(key)), None)
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            store = fs.S3FileSystem(endpoint_override=endpoint, region=region, request_timeout=_TIMEOUT_S)
            with store.open_input_stream(uri.removeprefix("s3://"), compression=None) as stream:
                yield stream
            return
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (NotImplementedError, ValueError):  # none of Arrow's own
        import fsspec

        with fsspec.open(uri, "rb") as stream:
            yield stream
        return
    with filesystem.open_input_stream(root, compression=None) as stream:
        yield stream
