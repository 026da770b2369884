"""The frame of every script: its environment, its exit code, and errors that a user can read."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

_PIPE_CLOSED = 128 + signal.SIGPIPE
"""Exit code of a program whose reader has ended (``| head``), as of the shell's own tools: no error of anyone."""
_IMPOSSIBLE_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Too long, or a link that leads to itself."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its code; print a user's mistake as ``error: ...`` and exit with code 2."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # under nohup it is ignored
        signal.signal(signal.SIGHUP, _on_sighup)
    try:
        code = main() or 0
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = end.code or 0
        else:
            raise
    except ValueError as error:
        from llm_descriptions.errors import DescriptionError
        from vlmodels.errors import UserError, with_short_words

        if not isinstance(error, (UserError, DescriptionError)):
            raise
        print(f"error: {with_short_words(str(error))}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        if not _reader_has_ended():
            raise
        code = _PIPE_CLOSED
    except OSError as error:
        if error.errno not in _IMPOSSIBLE_NAMES:
            raise
        print(f"error: {str(error.filename)[:200]}: {error.strerror}; choose another name", file=sys.stderr)
        code = 2
    _leave(code)


def _on_sigterm(*_: object) -> None:
    sys.exit(143)  # as an exception, so that what runs is ended and recorded as stopped


def _on_sighup(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # the terminal was closed: whoever handles SIGTERM by now ends what runs


def _reader_has_ended() -> bool:
    """Return whether nobody reads the output any more; else the broken pipe is that of a server or a process."""
    outputs = select.poll()
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # no file, or closed
            outputs.register(output, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in outputs.poll(0))


def _leave(code: int) -> None:
    """End the process without taking torch apart object by object, which takes seconds."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as the end of the interpreter does: it
    atexit._run_exitfuncs()  # noqa: SLF001 - ends executors and waits for threads, then calls what is registered
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = _PIPE_CLOSED
    os._exit(code)
