"""The listening socket, opened before anything else: a port that is taken is told at once."""

from __future__ import annotations

import errno
import socket

from vlmodels.errors import UserError

_BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one.

    Raises:
        UserError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port}: another program listens there; choose another, or 0 for any") from error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error}); choose others") from error


def url_of(listening: socket.socket) -> str:
    """Return the address for people."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
