"""Who may ask: everybody of this machine on loopback, else whoever has the token."""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.serving.limits import RefusedError
from vlmodels.errors import UserError

TOKEN_VARIABLE = "VIDADAPT_TOKEN"  # noqa: S105 - the name of a variable
LEAST_TOKEN = 16
"""Characters of a token that a user chooses."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN_PATHS = frozenset({"/", "/page.js", "/page.css", "/docs", "/docs.js", "/openapi.json", "/health", "/ready"})
"""What needs no token: nothing of it says anything about a model or a video."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a request must show.

    Attributes:
        token: that must come as ``Authorization: Bearer``; "" if none is asked for.
        loopback: whether the server listens on this machine only; then other names of it are refused, since a page
            elsewhere could make a browser here ask by a name of its own (DNS rebinding).
    """

    token: str
    loopback: bool

    def check(self, path: str, host: str, origin: str, authorization: str) -> None:
        """Refuse a request that may not be made.

        Args:
            path: of the URL.
            host: header of this name.
            origin: header of this name; "" if there is none.
            authorization: header of this name.

        Raises:
            RefusedError: 401 or 403.
        """
        if self.loopback and _name_of(host) not in _LOOPBACK:
            raise RefusedError(403, "wrong_host", "this server answers to 127.0.0.1 and localhost only")
        if origin and _host_of(origin) != host:
            raise RefusedError(403, "wrong_origin", "pages of other servers may not ask this one")
        if not self.token or path in OPEN_PATHS:
            return
        kind, _, given = authorization.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise RefusedError(
                401,
                "no_token",
                "this server asks for its token: send the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a server that listens there is reached from this machine only."""
    return host in _LOOPBACK


def choose_token(host: str, file: str | None) -> tuple[str, bool]:
    """Return the token to ask for, "" for none, and whether it was made here and so has to be shown.

    Args:
        host: that the server listens on.
        file: that holds the token; without it $VIDADAPT_TOKEN, else a new one unless ``host`` is this machine alone.

    Raises:
        UserError: the file cannot be read, or the token is too short or has characters that no header holds.
    """
    if file is not None:
        try:
            token, where = Path(file).read_text(encoding="utf-8").strip(), file
        except (OSError, ValueError) as error:
            raise UserError(f"--token-file {file} cannot be read ({error})") from error
        if not token:
            raise UserError(f"--token-file {file} is empty")
    else:
        token, where = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    if not token:
        return ("", False) if is_loopback(host) else (secrets.token_urlsafe(32), True)
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{where}: a token has at least {LEAST_TOKEN} ASCII characters and no blanks")
    return token, False


def _name_of(host: str) -> str:
    """Return the name of a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
