"""An HTTP server on loopback that answers like OpenAI's chat completions, or misbehaves as a test asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from llm_descriptions.client import DescriptionClient
from llm_descriptions.prompts import Question

MODELS = ["toy-chat", "other-chat"]


@dataclass
class Request:
    path: str
    authorization: str
    body: dict
    at: float

    @property
    def question(self) -> str:
        return next(m["content"] for m in self.body["messages"] if m["role"] == "user")


Step = Callable[["_Handler", Request], None]


def status(code: int, message: str = "no", **headers: str) -> Step:
    def step(handler: _Handler, request: Request) -> None:
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.send_json(code, {"error": {"message": message}}, dashed)

    return step


def says(content: str | None) -> Step:
    return lambda handler, request: handler.send_answer(content)


def completion(message: dict, finish_reason: str = "stop", **head: object) -> Step:
    return lambda handler, request: handler.send_completion(message, finish_reason, head)


def sends(body: str, kind: str = "application/json") -> Step:
    return lambda handler, request: handler.send_data(200, body.encode(), {"Content-Type": kind})


def raw(data: bytes, **headers: str) -> Step:
    dashed = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, request: handler.send_data(200, data, {"Content-Type": "application/json", **dashed})


def trickle(handler: _Handler, request: Request) -> None:
    """Send a byte every 20 ms, until the client leaves."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(ConnectionError):
        for _ in range(500):
            handler.wfile.write(b" ")
            time.sleep(0.02)


def sentences(*texts: str) -> Step:
    return says(json.dumps({"sentences": texts}))


def cut(handler: _Handler, request: Request) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def slow(seconds: float) -> Step:
    def step(handler: _Handler, request: Request) -> None:
        time.sleep(seconds)
        good(handler, request)

    return step


def good(handler: _Handler, request: Request) -> None:
    n = int(re.search(r"give me (\d+) sentences", request.question)[1])
    action = request.question.rpartition("action ")[2]
    handler.send_answer(json.dumps({"sentences": [f"phrase {i} of {action}" for i in range(n)]}))


class LlmServer:
    """A server that gives good answers, unless ``rule`` returns a step for a request or ``plan`` has steps left.

    Each request uses up one step of ``plan``.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.plan: deque[Step] = deque()
        self.rule: Callable[[Request], Step | None] = lambda request: None
        self.open = 0
        self.most_open = 0
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def asked(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/chat/completions")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits 40 ms for an acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server.owner
        request = Request(self.path, self.headers.get("Authorization", ""), {}, time.monotonic())
        server.requests.append(request)
        self.send_json(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in MODELS]}, {})

    def do_POST(self) -> None:
        server = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, self.headers.get("Authorization", ""), body, time.monotonic())
        with server.lock:
            server.requests.append(request)
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            step = server.rule(request) or (server.plan.popleft() if server.plan else good)
        try:
            if body["model"] not in MODELS:
                step = status(404, f"The model `{body['model']}` does not exist")
            step(self, request)
        finally:
            with server.lock:
                server.open -= 1

    def send_answer(self, content: str | None) -> None:
        self.send_completion({"content": content}, "stop", {})

    def send_completion(self, message: dict, finish_reason: str, head: dict) -> None:
        choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "toy-chat", "usage": usage}
        self.send_json(200, body | {"choices": [choice]} | head, {})

    def send_json(self, code: int, content: dict, headers: dict[str, str]) -> None:
        self.send_data(code, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})

    def send_data(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        with contextlib.suppress(ConnectionError):  # the client may have given up
            self.end_headers()
            self.wfile.write(data)


def run(server, *questions, **options):
    """Ask all questions (label, kind, n) at once; return the results and the usage. A single question may raise."""

    async def ask():
        options.setdefault("first_delay_s", 0.01)
        model = options.pop("model", "toy-chat")
        async with DescriptionClient(model, base_url=server.url, **options) as client:
            calls = [client.describe(Question(*question)) for question in questions]
            return await asyncio.gather(*calls, return_exceptions=len(calls) > 1), client.usage

    return asyncio.run(ask())
