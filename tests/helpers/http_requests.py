"""Requests to a server, as plain as they come."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "b0undary"


def call(url: str, method: str, path: str, body: bytes | None = None, **headers: str):
    """Return status, headers and JSON (or text) of an answer; ``content_type="x"`` sends Content-Type."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def form(*parts: tuple[str, bytes | str | Path]) -> bytes:
    """Return a form: a path is sent as a file of its name, text as a field."""
    body = b""
    for name, value in parts:
        named = f'; filename="{value.name}"' if isinstance(value, Path) else ""
        content = value.read_bytes() if isinstance(value, Path) else value
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += (content.encode() if isinstance(content, str) else content) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def predict(url: str, *parts, **headers: str):
    """Send a form to ``/v1/predict``."""
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return call(url, "POST", "/v1/predict", form(*parts), content_type=kind, **headers)


def predict_json(url: str, value: object, path: str = "/v1/predict"):
    """Send JSON."""
    return call(url, "POST", path, json.dumps(value).encode(), content_type="application/json")
