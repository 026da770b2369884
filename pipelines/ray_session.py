"""How every stage reaches Ray: the one it is already in, the cluster of RAY_ADDRESS, or a local one."""

from __future__ import annotations

import logging
import os
from typing import Any

OBJECT_STORE_BYTES = 1 << 30
"""Enough: frames never pass through the object store, only paths, small tables and weights do."""


def connect(num_cpus: int | None = None) -> None:
    """Make sure that this process is connected to Ray, quietly; may be called any number of times.

    A local Ray gets no dashboard and ``num_cpus`` (default: those of this machine). With VIDADAPT_DEBUG set, the
    workers' output and Ray's own words are shown.
    """
    debug = bool(os.environ.get("VIDADAPT_DEBUG"))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.data import DataContext

    level = logging.INFO if debug else logging.ERROR
    logging.getLogger("ray.data").setLevel(level)
    DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", logging_level=level, log_to_driver=debug)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        ray.init(address="local", num_cpus=num_cpus, logging_level=level, log_to_driver=debug, **local)
