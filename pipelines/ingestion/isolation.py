"""Decoding in a child process, so that a decoder that hangs or crashes costs one clip.

Frames come back through a file that parent and child map; only file names and facts go through the socket. The child
works on the next clip while the parent stores the last one: the file has two slots.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib
import itertools
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vlmodels.errors import UserError
from vlmodels.span import Cuts
from vlmodels.video import Frames, VideoError, VideoInfo

if TYPE_CHECKING:
    from pipelines.ingestion.decode import DecodeRequest

START_LIMIT_S = 300.0
IDLE_LIMIT_S = 60.0
"""A child without work ends: Ray may keep its worker, and so the child, long after an ingest."""
SLOTS = 2
CUTS_DECODER = "pipelines.ingestion.decode:decode_cuts"
"""``module:function`` of a function ``(path, settings, Cuts) -> [(frames, info) or VideoError for each span]``."""
CUT_BYTES = 512 << 20
"""Bytes of the frames that a child holds of one file's spans."""
MEMORY_LIMIT = 4 << 30
"""Bytes that a child may allocate, its frames not counted; 67 million pixels (``MAX_PIXELS``) need about 1.5 GB."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Frames and facts of a clip, or the reason why there are none."""

    frames: Frames | None
    info: VideoInfo | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    """A clip that a child is asked for.

    Attributes:
        path: of the file.
        cuts: what is taken from it; None for the whole file.
        number: which of the cuts.
        slot: where its frames go.
    """

    path: str
    cuts: Cuts | None
    number: int
    slot: int


@dataclass(frozen=True, slots=True)
class _Job:
    """What a child has to know before its first clip."""

    decode: str
    settings: Any
    slot_bytes: int
    time_limit_s: float
    cuts: str
    idle_limit_s: float


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
        cuts: ``module:function`` like ``CUTS_DECODER``, for parts of files.
        idle_limit_s: seconds without work after which the child ends.
    """

    def __init__(
        self,
        decode: str,
        settings: Any,
        largest: int,
        time_limit_s: float,
        cuts: str = CUTS_DECODER,
        *,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        slot_bytes = -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE
        self._job = _Job(decode, settings, slot_bytes, time_limit_s, cuts, idle_limit_s)
        self._file: IO[bytes] | None = None
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the child; None if there is none."""
        return self._child.pid if self._child else None

    def __call__(
        self, paths: Sequence[str], cuts: Sequence[Cuts | None] | None = None
    ) -> Generator[Decoded, None, None]:
        """Yield the result for each path and each of its cuts, in order; frames are valid until the next is asked for.

        Args:
            paths: files; a path is asked for once, when it is needed.
            cuts: of each file, what is taken from it: None for all of it, by the function ``decode``.

        Raises:
            UserError: the child does not start, or there is no room for its frames.
        """
        questions = self._questions(paths, cuts)
        asked: _Question | None = next(questions, None)
        outstanding = False
        try:
            if asked is not None:
                self._ask(asked)
                outstanding = True
            while asked is not None:
                reply = self._answer()
                outstanding = False
                answered, asked = asked, next(questions, None)
                lost = [reply] if self._child is None else []
                while lost and asked is not None and asked.cuts is answered.cuts is not None and asked.number:
                    lost.append(reply)  # of the same file, whose decoder has just ended
                    asked = next(questions, None)
                if asked is not None:
                    self._ask(asked)
                    outstanding = True
                for one in lost or [reply]:
                    yield self._decoded(one, answered.slot)
        finally:
            if outstanding:  # left early: the outstanding answer must not meet the next question
                self.close()

    def _questions(self, paths: Sequence[str], cuts: Sequence[Cuts | None] | None) -> Iterator[_Question]:
        at_once = max(1, CUT_BYTES // self._job.slot_bytes)
        slots = itertools.cycle(range(SLOTS))
        for number, file_cuts in enumerate(cuts or [None] * len(paths)):
            path = paths[number]
            if file_cuts is None:
                yield _Question(path, None, 0, next(slots))
                continue
            for start in range(0, len(file_cuts.spans), at_once):
                some = replace(file_cuts, spans=file_cuts.spans[start : start + at_once])
                for place in range(len(some.spans)):
                    yield _Question(path, some, place, next(slots))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ask(self, question: _Question) -> None:
        if self._file is None:
            self._file = _mapped_file(SLOTS * self._job.slot_bytes)
            self._memory = np.frombuffer(mmap.mmap(self._file.fileno(), SLOTS * self._job.slot_bytes), np.uint8)
        if self._child is None or self._child.has_ended():
            self._child = _Child(self._file.fileno(), self._job)
        with contextlib.suppress(OSError):  # it died between two clips: the answer will say so
            self._child.connection.send(question)

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
    decoder = _Decoder(_function(job.decode), _function(job.cuts), job.settings)
    memory = np.frombuffer(mmap.mmap(memory_fd, SLOTS * job.slot_bytes), np.uint8)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)  # native decoders print there, quiet or not
    connection.send("ready")
    while True:
        try:
            if not connection.poll(job.idle_limit_s):
                return
            question: _Question = connection.recv()
        except (EOFError, OSError):
            return
        # If the parent has died, nothing else would end a child that hangs: this timer works even if Python does not.
        faulthandler.dump_traceback_later(2 * job.time_limit_s + 1, exit=True)
        reply = _reply(decoder, question, memory[question.slot * job.slot_bytes :])
        faulthandler.cancel_dump_traceback_later()
        connection.send(reply)


def _limit_memory(size: int) -> None:
    """Let allocations above ``size`` bytes fail in this process, rather than in whatever else runs on the machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


class _Decoder:
    """Decodes in the child: a whole file, or all cuts of a file at once, which are then handed out one by one."""

    def __init__(self, whole: Callable[..., Any], cuts: Callable[..., Any], settings: Any) -> None:
        self._whole, self._cuts, self._settings = whole, cuts, settings
        self._held_for: tuple[str, Cuts] | None = None
        self._held: list[tuple[Frames, VideoInfo] | VideoError] = []

    def __call__(self, question: _Question) -> tuple[Frames, VideoInfo]:
        if question.cuts is None:
            self._held_for, self._held = None, []
            whole: tuple[Frames, VideoInfo] = self._whole(question.path, self._settings)
            return whole
        wanted = (question.path, question.cuts)
        if not question.number or self._held_for != wanted:
            self._held_for, self._held = None, []
            try:
                self._held = self._cuts(question.path, self._settings, question.cuts)
            except VideoError as error:
                self._held = [error] * len(question.cuts.spans)
            self._held_for = wanted
        found = self._held[question.number]
        if isinstance(found, VideoError):
            raise found
        return found


def _reply(decoder: _Decoder, question: _Question, slot_memory: Frames) -> _Reply:
    """Decode a clip into a slot."""
    try:
        frames, info = decoder(question)
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
