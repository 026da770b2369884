"""uvicorn on a listening socket, with a limit for senders that never finish their headers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_DRAIN_S = 60
"""Seconds that requests have to finish after Ctrl-C."""


def serve_http(app: Any, listening: socket.socket, patience_s: float) -> None:
    """Serve until SIGINT or SIGTERM, and finish what is under way; the signal is then raised again."""
    server_of(app, patience_s).run(sockets=[listening])


def server_of(app: Any, patience_s: float) -> uvicorn.Server:
    """Return uvicorn with the settings of ``serve_http``."""

    class Protocol(_Hurried):
        patience = patience_s

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    return uvicorn.Server(config)


class _Hurried(HttpToolsProtocol):
    """Closes connections whose headers do not come: uvicorn waits for them for ever (0.54)."""

    patience = 10.0
    _hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._start()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start()

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._stop()
        self._hurry = self.loop.call_later(self.patience, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
