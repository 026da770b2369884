"""Decoding in a child process, so that a decoder that hangs or crashes costs one clip.

Frames come back through a file that parent and child map; only file names and facts go through the socket. The child
works on the next clip while the parent stores the last one: the file has two slots.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vlmodels.errors import UserError
from vlmodels.video import Frames, VideoError, VideoInfo

if TYPE_CHECKING:
    from pipelines.ingestion.decode import DecodeRequest

START_LIMIT_S = 300.0
IDLE_LIMIT_S = 60.0
"""A child without work ends: Ray may keep its worker, and so the child, long after an ingest."""
SLOTS = 2
MEMORY_LIMIT = 4 << 30
"""Bytes that a child may allocate, its frames not counted; 67 million pixels (``MAX_PIXELS``) need about 1.5 GB."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Frames and facts of a clip, or the reason why there are none."""

    frames: Frames | None
    info: VideoInfo | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    """What a child has to know before its first clip."""

    decode: str
    settings: Any
    slot_bytes: int
    time_limit_s: float


@dataclass(frozen=True, slots=True)
class _Reply:
    """The child's answer: the shape of the frames in the slot and their facts, or an error."""

    shape: tuple[int, ...] = ()
    info: VideoInfo | None = None
    error: str = ""


@functools.lru_cache(maxsize=1)
def worker_decoder(request: DecodeRequest) -> IsolatedDecoder:
    """Return the decoder of this process, which all its batches share."""
    settings = request.settings
    return IsolatedDecoder(request.decode, settings, settings.largest, request.time_limit_s)


class IsolatedDecoder:
    """Owns one child process; starts it when needed, and again after it had to be killed.

    Args:
        decode: ``module:function`` of a function ``(path, settings) -> (frames uint8, VideoInfo)``.
        settings: passed on to it.
        largest: bytes that a clip's frames can have.
        time_limit_s: seconds for each clip.
    """

    def __init__(self, decode: str, settings: Any, largest: int, time_limit_s: float) -> None:
        slot_bytes = -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE
        self._job = _Job(decode, settings, slot_bytes, time_limit_s)
        self._file: IO[bytes] | None = None
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the child; None if there is none."""
        return self._child.pid if self._child else None

    def __call__(self, paths: Sequence[str]) -> Iterator[Decoded]:
        """Yield the result for each path, in order; frames are valid until the next one is asked for.

        Raises:
            UserError: the child does not start, or there is no room for its frames.
        """
        asked = answered = 0
        try:
            for number, path in enumerate(paths):
                if number == asked:
                    self._ask(path, number % SLOTS)
                    asked += 1
                reply = self._answer()
                answered += 1
                if asked < len(paths):
                    self._ask(paths[asked], asked % SLOTS)
                    asked += 1
                yield self._decoded(reply, number % SLOTS)
        finally:
            if asked != answered:  # left early: the outstanding answer must not meet the next question
                self.close()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ask(self, path: str, slot: int) -> None:
        if self._file is None:
            self._file = _mapped_file(SLOTS * self._job.slot_bytes)
            self._memory = np.frombuffer(mmap.mmap(self._file.fileno(), SLOTS * self._job.slot_bytes), np.uint8)
        if self._child is None or self._child.has_ended():
            self._child = _Child(self._file.fileno(), self._job)
        with contextlib.suppress(OSError):  # it died between two clips: the answer will say so
            self._child.connection.send((path, slot))

    def _answer(self) -> _Reply:
        assert self._child is not None
        try:
            if self._child.connection.poll(self._job.time_limit_s):
                reply: _Reply = self._child.connection.recv()
                return reply
            error = f"decoding takes more than {self._job.time_limit_s:g} s"
        except (EOFError, OSError):
            error = self._child.reason_of_death()
        self.close()
        return _Reply(error=error)

    def _decoded(self, reply: _Reply, slot: int) -> Decoded:
        if reply.info is None:
            return Decoded(None, None, reply.error)
        start = slot * self._job.slot_bytes
        frames = self._memory[start : start + int(np.prod(reply.shape))].reshape(reply.shape)
        return Decoded(frames, reply.info)


def _mapped_file(size: int) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the decoder
    try:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a SIGBUS later
    except OSError as error:
        raise UserError(f"no room for decoded frames in {tempfile.gettempdir()}: {error.strerror}") from error
    return file


class _Child:
    """The process, and the socket to it."""

    def __init__(self, memory: int, job: _Job) -> None:
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()}, {memory})"
        )
        output = tempfile.TemporaryFile()  # noqa: SIM115 - says why a start failed; the child is silent later
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own code
                [sys.executable, "-c", code],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())
        with contextlib.suppress(EOFError, OSError):
            self.connection.send(job)
            if self.connection.poll(START_LIMIT_S) and self.connection.recv():
                return
        self.kill()
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UserError(f"the decoding process does not start: {lines[-1]}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def reason_of_death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "the decoder was killed (out of memory?)"
        if code < 0:
            return f"the decoder crashed ({signal.Signals(-code).name})"
        return f"the decoder crashed (exit code {code})"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()


def serve(connection_fd: int, memory_fd: int) -> None:
    """Run in the child: decode what is asked for, until the parent has ended."""
    connection = Connection(connection_fd)
    job: _Job = connection.recv()
    _limit_memory(MEMORY_LIMIT + 3 * job.slot_bytes)
    module, name = job.decode.split(":")
    function: Callable[[str, Any], tuple[Frames, VideoInfo]] = getattr(importlib.import_module(module), name)
    memory = np.frombuffer(mmap.mmap(memory_fd, SLOTS * job.slot_bytes), np.uint8)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)  # native decoders print there, quiet or not
    connection.send("ready")
    while True:
        try:
            if not connection.poll(IDLE_LIMIT_S):
                return
            path, slot = connection.recv()
        except (EOFError, OSError):
            return
        # If the parent has died, nothing else would end a child that hangs: this timer works even if Python does not.
        faulthandler.dump_traceback_later(2 * job.time_limit_s + 1, exit=True)
        reply = _reply(function, path, job, memory[slot * job.slot_bytes :])
        faulthandler.cancel_dump_traceback_later()
        connection.send(reply)


def _limit_memory(size: int) -> None:
    """Let allocations above ``size`` bytes fail in this process, rather than in whatever else runs on the machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _reply(
    function: Callable[[str, Any], tuple[Frames, VideoInfo]], path: str, job: _Job, slot_memory: Frames
) -> _Reply:
    """Decode one file into a slot."""
    try:
        frames, info = function(path, job.settings)
        slot_memory[: frames.size] = frames.reshape(-1)
    except VideoError as error:
        return _Reply(error=error.cause)
    except UserError as error:
        return _Reply(error=str(error))
    except MemoryError:
        return _Reply(error=f"decoding takes more than {MEMORY_LIMIT >> 30} GB of memory")
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises costs this clip only
        return _Reply(error=f"{type(error).__name__}: {error}")
    return _Reply(frames.shape, info)
