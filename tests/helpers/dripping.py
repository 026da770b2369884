"""A web server that sends a byte now and then, until who asked has gone."""

from __future__ import annotations

import contextlib
import http.server
import threading
from dataclasses import dataclass, field

_TICK_S = 0.05
_TICKS = 600
"""Half a minute: what is not gone by then waits for the whole."""


@dataclass
class Dripping:
    """The server: its address, and whether it was left before it had sent all, or has sent all."""

    address: str
    was_left: threading.Event = field(default_factory=threading.Event)
    was_sent: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def dripping(where: str):
    """Serve an endless ``body``, header or ``redirect``: 1 byte in 50 ms."""
    start = {
        "header": b"HTTP/1.1 200 OK\r\nX-Slow: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        "redirect": b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 100000\r\n\r\n",
    }[where]

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.wfile.write(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.close_connection = True

        def do_GET(self):
            self.close_connection = True
            try:
                self.wfile.write(start)
                for _ in range(_TICKS):
                    self.wfile.write(b"x")
                    if ended.wait(_TICK_S):
                        return
                served.was_sent.set()
            except OSError:
                served.was_left.set()

    ended = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Dripping(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield served
        finally:
            ended.set()
            server.shutdown()
