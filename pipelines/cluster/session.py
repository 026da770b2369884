"""How every stage reaches Ray: the one it is already in, the cluster of RAY_ADDRESS, or a local one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from vlmodels.errors import UserError

OBJECT_STORE_BYTES = 1 << 30
"""Enough: frames never pass through the object store, only paths, small tables and weights do."""

ANSWER_S = 20.0
"""How long a machine may take to accept a connection."""


def connect(num_cpus: int | None = None, *, dashboard: str | None = None) -> str:
    """Make sure that this process is connected to Ray, quietly; may be called any number of times.

    Returns the address of Ray's dashboard, "" if there is none.

    A cluster is joined only where RAY_ADDRESS names it (``ray job submit`` sets it; by hand: ``RAY_ADDRESS=auto``).
    Without it a local Ray is started, with ``num_cpus`` (default: those of this machine) and a dashboard only if a host
    is given for it to listen on, though another may be running here: a stranger's would end at any time and knows
    nothing of this project. With
    VIDADAPT_DEBUG set, the workers' output and Ray's own words are shown.

    Raises:
        UserError: RAY_ADDRESS names no running Ray.
    """
    debug = bool(os.environ.get("VIDADAPT_DEBUG"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.data import DataContext

    level = logging.INFO if debug else logging.ERROR
    logging.getLogger("ray.data").setLevel(level)
    DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        return ""
    where: dict[str, Any] = {}
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        where = {"address": "local", "num_cpus": num_cpus, "include_dashboard": dashboard is not None}
        where |= {} if dashboard is None else {"dashboard_host": dashboard}
        where["object_store_memory"] = OBJECT_STORE_BYTES
    try:
        _check_listening(address or "")
        return str(ray.init(**where, logging_level=level, log_to_driver=debug).dashboard_url or "")
    except (OSError, ValueError) as error:
        if not address:
            raise
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray answers there ({' '.join(str(error).split())}); correct it, start that "
            "Ray, or unset RAY_ADDRESS for a Ray of this machine alone"
        ) from error


def _check_listening(address: str) -> None:
    """Find at once that nothing listens at HOST:PORT, which Ray takes minutes for."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Give back what this process holds of the cluster when the block is interrupted.

    Ray Tune cleans up after an ``Exception`` alone: after Ctrl-C its trials would keep their CPUs for as long as this
    process lives (a notebook, a test session).
    """
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
    except BaseException:
        for key in held() - before:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(key))))
        raise
