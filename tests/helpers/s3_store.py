"""An S3-compatible server on loopback, in a process of its own that can be stopped and continued."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyarrow import fs

BUCKET = "vidadapt-test"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
WAIT_S = 30
_REQUEST = re.compile(r"(GET|HEAD|PUT|POST|DELETE) ([^ ?]+) HTTP")


@dataclass(frozen=True)
class Server:
    """A running server; ``environment`` holds the variables by which it is found."""

    process: subprocess.Popen[bytes]
    endpoint: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}

    def requests(self, below: str = "") -> list[tuple[str, str]]:
        """Return method and key of every request for an object so far, in order; of those ``below`` a URI if given."""
        lines = self.log.read_text(errors="replace")
        found = [(method, unquote(path)) for method, path in _REQUEST.findall(lines)]
        prefix = f"/{below.removeprefix('s3://')}" if below else f"/{BUCKET}"
        return [(method, path.removeprefix(f"{prefix}/")) for method, path in found if path.startswith(f"{prefix}/")]

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Let it accept connections and answer none, as a machine that is cut off or overloaded."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Start a server with one bucket; stop it after the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - closed below
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        _wait(process, port)
        server = Server(process, f"http://127.0.0.1:{port}", Path(log.name))
        with environment(server.environment):
            fs.S3FileSystem(endpoint_override=server.endpoint, allow_bucket_creation=True).create_dir(BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        assert process.poll() is None, "moto's server ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"moto's server did not answer in {WAIT_S} s")


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
