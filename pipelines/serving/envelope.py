"""What every request passes: who may ask, what a browser may do with the answer, and the counters."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from pipelines.serving.access import Access
from pipelines.serving.limits import RefusedError
from pipelines.serving.metrics import Metrics

_HEADERS = {
    # The page loads nothing from elsewhere, and nobody shows it inside a page of theirs.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src blob:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
INTERNAL = {"error": {"code": "internal", "message": "an error of the server; its log says more"}}
_DRAIN_S = 1.0
_SHORT = (401, 403, 408)
"""Answers for which the rest of a body is not waited for."""
_OTHER = "other"


class Envelope:
    """An ASGI application around another.

    Args:
        app: answers.
        access: who may ask.
        metrics: counts.
        paths: that are counted by their own names.
    """

    def __init__(self, app: Any, access: Access, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._access, self._metrics, self._paths = app, access, metrics, frozenset(paths)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        call = _Call(receive, send, waits="expect" in headers)
        try:
            self._access.check(
                scope["path"], headers.get("host", ""), headers.get("origin", ""), headers.get("authorization", "")
            )
            await self._app(scope, call.receive, call.send)
        except RefusedError as error:
            await JSONResponse(error.to_json(), error.status, error.headers)(scope, call.receive, call.send)
        except Exception as error:  # noqa: BLE001 - one request's error is no end of the server
            _tell(error)
            if not call.status:
                await JSONResponse(INTERNAL, 500)(scope, call.receive, call.send)
        finally:
            path = scope["path"] if scope["path"] in self._paths else _OTHER
            self._metrics.request(path, call.status, time.perf_counter() - began)


class _Call:
    """Receives and sends for one request; a connection whose body was not read to its end is closed.

    Args:
        receive: as ASGI has it.
        send: the same.
        waits: whether the sender waits for a word before it sends the body.
    """

    def __init__(self, receive: Any, send: Any, *, waits: bool) -> None:
        self._receive, self._send, self._waits = receive, send, waits
        self.status = 0
        self._whole = False

    async def receive(self) -> Any:
        message = await self._receive()
        self._whole = self._whole or not message.get("more_body", False)
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self.status >= 400 and not self._whole:
                if not self._waits and self.status not in _SHORT:
                    await self._drain()
                headers["connection"] = "close"
        await self._send(message)

    async def _drain(self) -> None:
        """Read on for a moment: many senders look for an answer only when they have sent all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self._whole:
                    await self.receive()


def _tell(error: Exception) -> None:
    if os.environ.get("VIDADAPT_DEBUG"):
        traceback.print_exception(error)
    else:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        print(f"error: {text} (VIDADAPT_DEBUG=1 shows more)", file=sys.stderr, flush=True)
