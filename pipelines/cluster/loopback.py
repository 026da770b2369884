"""A local Ray that only this user's processes on this machine reach: docs/RAY.md#a-ray-of-its-own."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator

_ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0, Ray's processes take 127.0.0.1 for the machine's address and listen there, on Linux too."""


def require_token() -> None:
    """Let a local Ray ask for a token that this process makes; a mode or a token that the user has set stays.

    Call it before Ray is imported, which reads the mode. A Ray that is imported already asks for one by its default.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    chosen = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if not chosen and os.environ.get("RAY_AUTH_MODE", "token") == "token":
        # For as long as the process lives, since Ray reads it once; it also spares a file in the user's home.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Let a Ray that starts in the block listen on loopback alone."""
    from ray._private import ray_constants

    before, listed = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_ONE_MACHINE)
    ray_constants.ENABLE_RAY_CLUSTER = False  # of this process, whose Ray may be imported already
    os.environ[_ONE_MACHINE] = "0"  # of those that it starts
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_ONE_MACHINE]
        if listed is not None:
            os.environ[_ONE_MACHINE] = listed
