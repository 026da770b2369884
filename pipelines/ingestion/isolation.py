"""Decodes in a child process, so that a decoder that hangs or crashes costs one clip.

Frames come back through a file that parent and child map; only a few words go through the socket. The child
works on the next clip while the parent stores the last one: there are two slots in the file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

import numpy as np

from vlmodels.errors import UserError
from vlmodels.video import Frames, VideoError, VideoInfo

START_LIMIT_S = 300.0
IDLE_LIMIT_S = 60.0
"""A child without work ends; Ray may keep its worker, and so the child, long after an ingest."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Frames and facts of a clip; or neither, and the reason."""

    frames: Frames | None
    info: VideoInfo | None
    error: str = ""


class IsolatedDecoder:
    """Owns one child process; starts it when needed, and again after it had to be killed.

    Args:
        decode: ``module:function`` of a function ``(path, settings) -> (frames uint8, VideoInfo)``.
        settings: passed on to it.
        largest: bytes that a clip's frames can have.
        time_limit: seconds for each clip.
    """

    def __init__(self, decode: str, settings: Any, largest: int, time_limit: float) -> None:
        self._decode, self._settings = decode, settings
        self._slot = -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE
        self._time_limit = time_limit
        self._file: IO[bytes] | None = None
        self._child: _Child | None = None

    def __call__(self, paths: Sequence[str]) -> Iterator[Decoded]:
        """Yield what became of each path, in order; frames are valid until the next one is asked for."""
        asked = answered = 0
        try:
            for number, path in enumerate(paths):
                if number == asked:
                    self._ask(path, number % 2)
                    asked += 1
                reply = self._answer()
                answered += 1
                if asked < len(paths):
                    self._ask(paths[asked], asked % 2)
                    asked += 1
                if isinstance(reply, str):
                    yield Decoded(None, None, reply)
                else:
                    shape, info = reply
                    start = number % 2 * self._slot
                    frames = self._memory[start : start + int(np.prod(shape))].reshape(shape)
                    yield Decoded(frames, info)
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
            self._file = _mapped_file(2 * self._slot)
            self._memory = np.frombuffer(mmap.mmap(self._file.fileno(), 2 * self._slot), np.uint8)
        if self._child is None or self._child.has_ended():
            job = (self._decode, self._settings, self._slot, self._time_limit)
            self._child = _Child(self._file.fileno(), job)
        with contextlib.suppress(OSError):  # it died between two clips: the answer will say so
            self._child.connection.send((path, slot))

    def _answer(self) -> tuple[tuple[int, ...], VideoInfo] | str:
        assert self._child is not None
        try:
            if self._child.connection.poll(self._time_limit):
                reply: tuple[tuple[int, ...], VideoInfo] | str = self._child.connection.recv()
                return reply
            reason = f"decoding takes more than {self._time_limit:g} s"
        except (EOFError, OSError):
            reason = self._child.obituary()
        self.close()
        return reason


def _mapped_file(size: int) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the decoder
    try:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a SIGBUS later
    except OSError as error:
        raise UserError(f"no room for decoded frames in {tempfile.gettempdir()}: {error.strerror}") from error
    return file


class _Child:
    """The process, and the socket to it."""

    def __init__(self, memory: int, job: tuple[str, Any, int, float]) -> None:
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()}, {memory})"
        )
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - why a start failed; the child then goes silent
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own code
                [sys.executable, "-c", code],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())
        with contextlib.suppress(EOFError, OSError):
            self.connection.send(job)
            if self.connection.poll(START_LIMIT_S) and self.connection.recv():
                return
        self.kill()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UserError(f"the decoding process does not start: {said[-1]}")

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def obituary(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "the decoder was killed (out of memory?)"
        return f"the decoder crashed ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()


def serve(connection_fd: int, memory_fd: int) -> None:
    """Run in the child: decode what is asked for, until the parent is gone."""
    connection = Connection(connection_fd)
    decode, settings, slot_bytes, time_limit = connection.recv()
    module, name = decode.split(":")
    function: Callable[[str, Any], tuple[Frames, VideoInfo]] = getattr(importlib.import_module(module), name)
    memory = np.frombuffer(mmap.mmap(memory_fd, 2 * slot_bytes), np.uint8)
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
        # Without a parent nobody would end a child that hangs: this timer works even if Python does not.
        faulthandler.dump_traceback_later(2 * time_limit + 1, exit=True)
        reply: tuple[tuple[int, ...], VideoInfo] | str
        try:
            frames, info = function(path, settings)
            start = slot * slot_bytes
            memory[start : start + frames.size] = frames.reshape(-1)
            reply = (frames.shape, info)
        except VideoError as error:
            reply = error.cause
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is that clip's fate
            reply = f"{type(error).__name__}: {error}"
        faulthandler.cancel_dump_traceback_later()
        connection.send(reply)
