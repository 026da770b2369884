"""How every stage reaches Ray: the one it is already in, the cluster of RAY_ADDRESS, or a local one."""

from __future__ import annotations

import logging
import os


def connect() -> None:
    """Make sure that this process is connected to Ray, quietly; a local Ray gets no dashboard."""
    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        return
    local = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(logging_level=logging.WARNING, log_to_driver=False, **local)
