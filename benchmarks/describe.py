"""Wall time of the language-model stage with a loopback server of fixed latency, against the least possible time.

    python benchmarks/describe.py [CALLSxCONCURRENCYxLATENCY ...]

The least possible time is calls / concurrency x latency. The default is two jobs: both kinds of descriptions for
UCF-101's 101 classes at 2 s, and for Kinetics-400's 400 classes at 1 s. "bare" is a program written by hand: the same
client library, a semaphore and a dict. "ours" is the whole stage on a fresh local Ray, from the check of the server to
the last answer in the store. A further line adds the start of Ray. The second run must have no questions left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from llm_descriptions.prompts import MSTA_V1, Question
from llm_descriptions.store import FILE_NAME, DescriptionStore
from pipelines.cluster.session import connect
from pipelines.descriptions.ask import Server, ask_missing

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

N = 2
JOBS = ("202x8x2", "800x8x1")
ANSWER = json.dumps({"sentences": ["a hand in motion", "two people at a table"]})
LIMIT = 1.1


def serve(latency: float, port: Connection) -> None:
    """Serve answers, each after ``latency`` seconds, to all questions at the same time; send the chosen port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Log nothing."""

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
    """Ask all questions in a program written by hand."""
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


def measure(calls: int, concurrency: int, latency: float) -> None:
    """Run one job both ways; print seconds and ratios."""
    import ray

    port, server_end = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(latency, server_end), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port.recv()}/v1"
    questions = [Question(f"class {i}", "spatial", N) for i in range(calls)]
    least = calls / concurrency * latency
    print(f"{calls} calls of {latency:g} s, {concurrency} at a time: least possible {least:.1f} s")

    started = time.perf_counter()
    connect()
    start = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        store, server = DescriptionStore(Path(folder) / FILE_NAME), Server("fixed", url, concurrency)
        started = time.perf_counter()
        outcome = ask_missing(store, questions, server, say=lambda _: None)
        ours = time.perf_counter() - started
        assert (outcome.stored, outcome.calls) == (calls, calls)
        stored = set(store.keys())
        again = [question for question in questions if server.key(question) not in stored]
    ray.shutdown()
    started = time.perf_counter()
    asyncio.run(bare(url, questions, concurrency))
    plain = time.perf_counter() - started
    process.terminate()
    verdict = "ok" if ours <= LIMIT * least else f"OVER {LIMIT}"
    print(f"  bare             {plain:6.2f} s  {plain / least:.3f} x least")
    print(
        f"  ours             {ours:6.2f} s  {ours / least:.3f} x least  {verdict}; {ours - plain:.1f} s more than bare"
    )
    print(f"  with Ray's start {start + ours:6.2f} s  {(start + ours) / least:.3f} x least; it took {start:.1f} s")
    print(f"  second run       {len(again)} calls", flush=True)


def main() -> None:
    """Measure every job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=JOBS, metavar="CALLSxCONCURRENCYxLATENCY")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for job in parser.parse_args().jobs:
        calls, concurrency, latency = job.split("x")
        measure(int(calls), int(concurrency), float(latency))


if __name__ == "__main__":
    main()
