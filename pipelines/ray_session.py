"""How every stage reaches Ray: the one it is already in, the cluster of RAY_ADDRESS, or a local one of its own."""

from __future__ import annotations

import logging
import os
from typing import Any

OBJECT_STORE_BYTES = 1 << 30
"""Enough: frames never pass through the object store, only paths, small tables and weights do."""


def connect(num_cpus: int | None = None, *, dashboard: str | None = None) -> str:
    """Make sure that this process is connected to Ray, quietly; may be called any number of times.

    Returns the address of Ray's dashboard, "" if there is none.

    A cluster is joined only where RAY_ADDRESS names it (``ray job submit`` sets it; by hand: ``RAY_ADDRESS=auto``).
    Without it a local Ray is started, with ``num_cpus`` (default: those of this machine) and a dashboard only if a host
    is given for it to listen on, though another may be running here: a stranger's would end at any time and knows
    nothing of this project. With
    VIDADAPT_DEBUG set, the workers' output and Ray's own words are shown.
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
    if not os.environ.get("RAY_ADDRESS"):
        where = {"address": "local", "num_cpus": num_cpus, "include_dashboard": dashboard is not None}
        where |= {} if dashboard is None else {"dashboard_host": dashboard}
        where["object_store_memory"] = OBJECT_STORE_BYTES
    return str(ray.init(**where, logging_level=level, log_to_driver=debug).dashboard_url or "")
