"""The language-model stage against a server of fixed latency on loopback: wall time beside the least possible.

    python benchmarks/describe.py [--calls 202] [--concurrency 8] [--latency 2.0]

The least is calls / concurrency x latency; by default it is UCF-101's job, both kinds of 101 classes. Bare is what
one would write by hand: the same client library, a semaphore, a dict. Ours is the whole stage on a Ray that runs
already, from the check of the server over Ray Data and its actor to the last answer in the store; the start of a
local Ray, once a session, is printed apart. The second run must have nothing to ask.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.prompts import MSTA_V1
from llm_descriptions.store import FILE_NAME, DescriptionStore
from pipelines.data.describe_stage import Question, Server, ask_missing
from pipelines.ray_session import connect

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

N = 2
ANSWER = json.dumps({"sentences": ["a hand in motion", "two people at a table"]})
LIMIT = 1.1


def serve(latency: float, port: Connection) -> None:
    """Answer every question after ``latency`` seconds, all at a time; send the port that was free."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.reply({"object": "list", "data": []})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(latency)
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
            usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
            head = {"id": "x", "object": "chat.completion", "created": 0, "model": "fixed"}
            self.reply(head | {"choices": [choice], "usage": usage})

        def reply(self, content: dict) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    port.send(http.server_port)
    http.serve_forever()


async def bare(url: str, questions: list[Question], concurrency: int) -> dict[Question, str | None]:
    """Ask with nothing around it."""
    import openai

    slots = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

        async def ask(question: Question) -> str | None:
            messages = [
                {"role": "system", "content": MSTA_V1.instruction(question.kind, question.n)},
                {"role": "user", "content": MSTA_V1.question(question.label, question.kind, question.n)},
            ]
            async with slots:
                reply = await client.chat.completions.create(model="fixed", messages=messages)
            return reply.choices[0].message.content

        return dict(zip(questions, await asyncio.gather(*map(ask, questions)), strict=True))


def main() -> None:
    """Run both sides, print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=202)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--latency", type=float, default=2.0, metavar="SECONDS")
    args = parser.parse_args()

    mine, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(args.latency, theirs), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{mine.recv()}/v1"
    questions = [Question(f"class {i}", "spatial", N) for i in range(args.calls)]
    least = args.calls / args.concurrency * args.latency
    print(f"{args.calls} calls of {args.latency} s, {args.concurrency} at a time: least possible {least:.1f} s")

    started = time.perf_counter()
    connect()
    print(f"{'Ray starts':12s} {time.perf_counter() - started:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        store, server = DescriptionStore(Path(folder) / FILE_NAME), Server("fixed", url, args.concurrency)
        started = time.perf_counter()
        outcome = ask_missing(store, questions, server, say=lambda _: None)
        ours = time.perf_counter() - started
        assert (outcome.stored, outcome.calls) == (args.calls, args.calls)
        held = set(store.keys())
        again = [question for question in questions if server.key(question) not in held]
    started = time.perf_counter()
    asyncio.run(bare(url, questions, args.concurrency))
    plain = time.perf_counter() - started
    verdict = "ok" if ours <= LIMIT * least else f"OVER {LIMIT}"
    print(f"{'bare':12s} {plain:6.2f} s  {plain / least:.3f} x least")
    print(f"{'ours':12s} {ours:6.2f} s  {ours / least:.3f} x least  {verdict}; {ours - plain:.1f} s more than bare")
    print(f"{'second run':12s} {len(again)} calls")
    process.terminate()


if __name__ == "__main__":
    main()
