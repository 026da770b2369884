"""The server under load: requests side by side, every tenth hostile; and the bare predictor on the same videos.

python benchmarks/serve.py --model DIR --videos 'DIR/*.mp4' [--requests 1000] [--at-once 16] [--bare 100]

Good answers are compared with the predictor's, hostile requests must be refused (4xx) and cost nobody else anything.
The predictor is timed before and after the server, in this process alone: decode, then score, one video after another.
"""

from __future__ import annotations

import argparse
import collections
import glob
import http.client
import json
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HOSTILE = ("broken", "html", "huge header", "playlist", "traversal", "slow")
BOUNDARY = "b0undary"
TARGET = 0.85


@dataclass(frozen=True)
class Question:
    """A request: a file's name and content, and what is wrong with it ("" for nothing)."""

    name: str
    content: bytes
    fault: str = ""


@dataclass(frozen=True)
class Outcome:
    """An answer: HTTP's status (0 if the connection was closed), its JSON, and seconds."""

    question: Question
    status: int
    body: dict
    seconds: float


def hostile(fault: str, video: bytes) -> Question:
    """Return a request that must be refused."""
    if fault == "broken":
        return Question("a.mp4", video[: len(video) // 3], fault)
    if fault == "html":
        return Question("a.mp4", b"<!doctype html><title>404</title><p>Not found", fault)
    if fault == "huge header":
        return Question("a.avi", huge_avi(), fault)
    if fault == "playlist":
        return Question("a.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", fault)
    if fault == "traversal":
        return Question("../../../../tmp/vidadapt-was-here.mp4", b"no video", fault)
    return Question("a.mp4", video, fault)


def huge_avi() -> bytes:
    """Return an AVI of a hundred bytes whose header asks for pictures of 2 GB."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content

    width, height = 32768, 21845
    header = chunk(b"avih", struct.pack("<14I", 40000, 0, 0, 0, 1, 0, 1, 0, width, height, 0, 0, 0, 0))
    stream = chunk(b"strh", b"vidsMJPG" + struct.pack("<10I", 0, 0, 0, 1, 25, 0, 1, 0, 0, 0) + bytes(8))
    form = chunk(
        b"strf", struct.pack("<IiiHH6I", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)[:16] + b"MJPG" + bytes(20)
    )
    lists = chunk(b"LIST", b"hdrl" + header + chunk(b"LIST", b"strl" + stream + form))
    return chunk(b"RIFF", b"AVI " + lists + chunk(b"LIST", b"movi" + chunk(b"00dc", bytes(16))))


def questions(videos: list[Path], count: int) -> list[Question]:
    """Return ``count`` requests, every tenth hostile."""
    contents = {video: video.read_bytes() for video in videos}
    made = []
    for number in range(count):
        video = videos[number % len(videos)]
        if number % 10 == 9:
            made.append(hostile(HOSTILE[number // 10 % len(HOSTILE)], contents[video]))
        else:
            made.append(Question(str(video), contents[video]))
    return made


def form_of(question: Question) -> bytes:
    """Return a request's body as multipart/form-data."""
    name = question.name.replace('"', "%22")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="video"; filename="{name}"\r\n\r\n'
    return head.encode() + question.content + f"\r\n--{BOUNDARY}--\r\n".encode()


def send(url: str, question: Question, *, pause_s: float = 0.2) -> Outcome:
    """Send a request and return its outcome; a slow one sends a byte at a time."""
    address = urlsplit(url)
    began = time.perf_counter()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = form_of(question)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    try:
        if question.fault == "slow":
            connection.connect()
            lines = [
                f"{name}: {value}"
                for name, value in {"Host": address.netloc, "Content-Length": len(body), **kind}.items()
            ]
            connection.sock.sendall("\r\n".join(["POST /v1/predict HTTP/1.1", *lines, "", ""]).encode())
            reply = drip(connection.sock, body, pause_s)
        else:
            connection.request("POST", "/v1/predict", body, kind)
            reply = connection.getresponse()
        status, text = reply.status, reply.read()
    except (ConnectionError, http.client.HTTPException):
        return Outcome(question, 0, {}, time.perf_counter() - began)
    finally:
        connection.close()
    return Outcome(question, status, json.loads(text), time.perf_counter() - began)


def drip(link: socket.socket, body: bytes, pause_s: float) -> http.client.HTTPResponse:
    """Send a byte at a time until there is an answer."""
    for byte in body:
        link.settimeout(pause_s)
        try:
            if link.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            link.sendall(bytes([byte]))
    link.settimeout(30)
    reply = http.client.HTTPResponse(link)
    reply.begin()
    return reply


def load(url: str, asked: list[Question], at_once: int) -> tuple[list[Outcome], float]:
    """Send all requests, ``at_once`` side by side; return their outcomes and the seconds."""
    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda question: send(url, question), asked))
    return outcomes, time.perf_counter() - began


def wrong(outcomes: list[Outcome], right: dict[str, list[tuple[str, float]]]) -> list[str]:
    """Return what is wrong with the outcomes: good ones must have the predictor's answer, others 4xx."""
    found = []
    for outcome in outcomes:
        question, fault = outcome.question, outcome.question.fault
        if fault:
            if not 400 <= outcome.status < 500:
                found.append(f"{fault}: {outcome.status} {outcome.body}")
            continue
        if outcome.status != 200:
            found.append(f"{question.name}: {outcome.status} {outcome.body}")
            continue
        got = [(one["label"], one["probability"]) for one in outcome.body["results"][0]["topk"]]
        same = all(abs(dict(got)[label] - share) < 1e-4 for label, share in right[question.name])
        if len(got) != len(right[question.name]) or not same:
            found.append(f"{question.name}: {got} instead of {right[question.name]}")
    return found


def bare(predictor: object, videos: list[Path], count: int) -> tuple[dict[str, list[tuple[str, float]]], list[float]]:
    """Return the predictor's answers, and its seconds for each of ``count`` videos."""
    answers, seconds = {}, []
    for number in range(max(count, len(videos))):
        video = videos[number % len(videos)]
        began = time.perf_counter()
        found = predictor(video)  # type: ignore[operator]
        seconds.append(time.perf_counter() - began)
        answers[str(video)] = [(one.label, one.probability) for one in found]
    return answers, seconds


def processes(root: int) -> dict[int, str]:
    """Return the command lines of a process and all below it."""
    children = collections.defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parts[2]))
        except OSError:  # it has ended
            continue
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children[pid]
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def replicas(root: int) -> set[int]:
    """Return the process numbers of Serve's replicas below a process."""
    return {pid for pid, name in processes(root).items() if name.startswith("ray::ServeReplica")}


def memory_mb(root: int) -> dict[str, float]:
    """Return the resident memory of a process and all below it, by what they are, in MB."""
    found: dict[str, float] = collections.defaultdict(float)
    for pid, name in processes(root).items():
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        replica = re.match(r"ray::ServeReplica:[^:]+:(\w+)", name)
        label = "server" if pid == root else "decoding" if "isolation" in name else "Ray"
        found[f"replica {replica[1]}" if replica else label] += pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return dict(found)


def start(model: str, arguments: list[str]) -> tuple[subprocess.Popen[str], str]:
    """Start the server on a free port; return its process and address."""
    script = Path(__file__).parents[1] / "pipelines" / "serve.py"
    process = subprocess.Popen(
        [sys.executable, str(script), "--model", model, "--port", "0", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if found := re.match(r"ready: (\S+)", line):
            return process, found[1]
    raise SystemExit("the server did not start")


def main() -> None:
    """Print a report; exit with code 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--videos", required=True)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--bare", type=int, default=200)
    args, others = parser.parse_known_args()
    videos = sorted(map(Path, glob.glob(args.videos, recursive=True)))  # noqa: PTH207 - absolute patterns too

    from vlmodels import load as load_model

    predictor = load_model(args.model)
    bare(predictor, videos[:2], 2)
    right, before = bare(predictor, videos, args.bare)
    process, url = start(args.model, others)
    try:
        for video in videos[:4]:
            send(url, Question(str(video), video.read_bytes()))
        workers, memory = replicas(process.pid), memory_mb(process.pid)
        outcomes, seconds = load(url, questions(videos, args.requests), args.at_once)
        lost, after = workers - replicas(process.pid), memory_mb(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    _, again = bare(predictor, videos, args.bare)
    report_load(outcomes, seconds, before + again)
    report_memory(memory, after)
    faults = wrong(outcomes, right)
    print(f"replicas lost: {len(lost)}; wrong: {len(faults)}")
    print("\n".join(faults[:10]))
    sys.exit(1 if faults or lost else 0)


def report_load(outcomes: list[Outcome], seconds: float, bare_s: list[float]) -> None:
    """Print throughput and latency, beside those of the bare predictor."""
    times = sorted(outcome.seconds for outcome in outcomes if not outcome.question.fault)
    rate, alone, ordered = len(times) / seconds, 1 / statistics.mean(bare_s), sorted(bare_s)
    print(f"{len(outcomes)} requests in {seconds:.1f} s: {dict(collections.Counter(o.status for o in outcomes))}")
    for name, each, some in (("server", rate, times), ("bare predictor", alone, ordered)):
        p50, p95 = quantile(some, 0.5), quantile(some, 0.95)
        print(f"{name}: {each:.2f} good answers a second, p50 {p50:.3f} s, p95 {p95:.3f} s")
    verdict = "ok" if rate >= TARGET * alone else "BELOW"
    print(f"throughput: {rate / alone:.2f} of the bare predictor's ({verdict}; target >= {TARGET})")


def report_memory(before: dict[str, float], after: dict[str, float]) -> None:
    """Print the memory of each kind of process."""
    for name in sorted(before.keys() | after.keys()):
        print(f"memory of {name}: {before.get(name, 0):.0f} MB before, {after.get(name, 0):.0f} MB after")


def quantile(ordered: list[float], share: float) -> float:
    """Return a quantile of ascending numbers."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
