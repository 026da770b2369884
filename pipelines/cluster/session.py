"""Connections to Ray: the one that the process has, the cluster of RAY_ADDRESS, or a local Ray of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from pipelines.cluster.local_start import check_temp_dir, start_patiently
from pipelines.cluster.loopback import on_loopback, require_token
from pipelines.config.schema import ScaleConfig
from vlmodels.errors import UserError

OBJECT_STORE_BYTES = 1 << 30
"""Enough: frames never pass through the object store, only paths, small tables and weights do."""

ANSWER_S = 20.0
"""Seconds that a machine may take to accept a connection."""

_AHEAD = "connect ahead"
_begun = threading.Event()
"""A thread connects, or has connected."""
_done = threading.Event()
"""It has ended its attempt."""
_ending = threading.Lock()


def connect(num_cpus: int | None = None, *, dashboard: str | None = None) -> str:
    """Connect this process to Ray, quietly, unless it is connected.

    A cluster is joined only where RAY_ADDRESS names it (``ray job submit`` sets it; by hand: ``RAY_ADDRESS=auto``).
    Else a local Ray is started, which listens on loopback and asks for a token, even if another one runs here
    (docs/RAY.md#a-ray-of-its-own). VIDADAPT_DEBUG shows the workers' output and Ray's own messages.

    Args:
        num_cpus: of a local Ray; those of this machine by default.
        dashboard: host on which the dashboard of a local Ray listens; without it there is no dashboard.

    Returns:
        The address of Ray's dashboard, "" if there is none.

    Raises:
        UserError: RAY_ADDRESS names no running Ray, or a local one does not start.
    """
    debug = bool(os.environ.get("VIDADAPT_DEBUG"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        require_token()
    import ray

    level = logging.INFO if debug else logging.ERROR
    if threading.current_thread().name != _AHEAD and _begun.is_set():
        _done.wait()
        with _ending:  # a Ray that is about to end is none
            pass
    if ray.is_initialized():
        return ""
    settings = {} if address else _local_settings(num_cpus, dashboard)

    def start() -> str:
        return str(ray.init(**settings, logging_level=level, log_to_driver=debug).dashboard_url or "")

    try:
        _check_listening(address or "")
        with _own_sigterm():
            if address:
                return start()
            check_temp_dir()
            with on_loopback():
                return start_patiently(start, ray.shutdown)
    except (OSError, ValueError) as error:
        if not address:
            raise
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray answers there ({' '.join(str(error).split())}); correct it, start that "
            "Ray, or unset RAY_ADDRESS for a Ray of this machine alone"
        ) from error


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Put a handler of SIGTERM back after the block, if there was one: Ray's ends the process with another code."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def connect_for_data() -> None:
    """Connect as ``connect`` does, and keep Ray Data as quiet.

    Raises:
        UserError: as ``connect``.
    """
    from ray.data import DataContext

    connect()
    level = logging.INFO if os.environ.get("VIDADAPT_DEBUG") else logging.ERROR
    logging.getLogger("ray.data").setLevel(level)
    DataContext.get_current().enable_progress_bars = False


def fits_here(scale: ScaleConfig) -> bool:
    """Return whether a run needs no Ray: one worker, and no cluster that the environment names."""
    return scale.workers == 1 and not os.environ.get("RAY_ADDRESS")


def connect_ahead() -> None:
    """Begin to connect while this process does something else; ``connect`` waits for it, and meets its errors again."""
    if _begun.is_set() or ("ray" in sys.modules and sys.modules["ray"].is_initialized()):
        return
    _begun.set()
    threading.Thread(target=_connect_ahead, name=_AHEAD, daemon=True).start()


def _connect_ahead() -> None:
    with contextlib.suppress(Exception):
        connect()
    _done.set()
    threading.Event().wait()  # Linux ends what a thread has started with that thread, and Ray asks for that


def disconnect() -> None:
    """End a connection that ``connect_ahead`` has begun, and a local Ray with it."""
    with _ending:
        if _begun.is_set():
            import ray

            _done.wait()
            ray.shutdown()
            _begun.clear()
            _done.clear()


def _local_settings(num_cpus: int | None, dashboard: str | None) -> dict[str, Any]:
    """Return the arguments of ``ray.init`` for a Ray of this process alone."""
    settings: dict[str, Any] = {"address": "local", "num_cpus": num_cpus, "object_store_memory": OBJECT_STORE_BYTES}
    if dashboard is None:
        return settings | {"include_dashboard": False}
    return settings | {"include_dashboard": True, "dashboard_host": dashboard}


def _check_listening(address: str) -> None:
    """Raise OSError at once if nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


@contextlib.contextmanager
def release_after() -> Iterator[None]:
    """Remove the placement groups that the block made and left (docs/RAY.md#ctrl-c)."""
    import ray
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()

    def held() -> set[str]:
        groups = placement_group_table()
        return {key for key in groups if key.endswith(job) and groups[key]["state"] != "REMOVED"}

    before = held()
    try:
        yield
    finally:
        for key in held() - before:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(key))))
