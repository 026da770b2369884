"""Start a Ray of this machine alone: its folder is checked before, and a start that fails is tried once more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from vlmodels.errors import UserError

SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux."""
_BELOW = "/ray/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
"""Where Ray's longest socket lies below its temporary folder."""


def check_temp_dir() -> None:
    """Check that Ray's sockets find room below its temporary folder.

    Raises:
        UserError: the folder's path is too long.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    folder = os.environ.get(name, "/tmp")  # noqa: S108 - Ray's own default
    room = SOCKET_BYTES - len(_BELOW.format(pid=os.getpid()))
    size = len(os.fsencode(folder.rstrip("/")))
    if sys.platform == "linux" and size > room:
        raise UserError(
            f"{name} is too long for Ray's sockets ({size} bytes, at most {room}: {folder}); set RAY_TMPDIR to a short "
            "path, such as /tmp"
        )


def start_patiently(start: Callable[[], str], end: Callable[[], None]) -> str:
    """Return what ``start`` returns; if it fails, ``end`` what there is of it and try once more.

    Args:
        start: starts Ray.
        end: removes what a failed start has left.

    Raises:
        UserError: it failed twice.
    """
    try:
        return start()
    except Exception:  # noqa: BLE001 - Ray raises whatever it met, on a busy machine mostly that it took too long
        end()
    try:
        return start()
    except Exception as error:
        end()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"Ray did not start on this machine, tried twice ({reason}); if the machine is busy, try again later; "
            "VIDADAPT_DEBUG=1 shows Ray's own messages"
        ) from error
