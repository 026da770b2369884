"""Measure what a run took on its first rank: memory, seconds of a step, clips and views per second."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pipelines.config.schema import TrainConfig
    from pipelines.protocols.split import Split


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure the peak memory of a run."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is in use now


def peak_memory_mb(device: torch.device, *, own_process: bool) -> dict[str, float]:
    """Return the peak memory in MiB since ``reset_peak_memory``: of the GPU, or of a process that does only runs.

    The process' memory includes what Python, PyTorch and earlier runs hold. It is known on Linux alone.
    """
    import torch

    if device.type == "cuda":
        return {"peak_memory_mb": torch.cuda.max_memory_allocated(device) / 2**20}
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found and own_process:
            return {"peak_memory_mb": int(found[1]) / 1024}
    return {}


def speeds(
    config: TrainConfig, split: Split, history: Sequence[Mapping[str, float]], *, scoring_seconds: float
) -> dict[str, float]:
    """Return seconds of a step and clips per second in the fastest epoch, and views per second of the scoring."""
    cost: dict[str, float] = {}
    if views := _scored_views(config, split):
        cost["scored_views_per_second"] = views / max(scoring_seconds, 1e-9)
    if history:
        fastest = min(history, key=lambda epoch: epoch["seconds"])  # the first one warms up
        cost["step_seconds"] = fastest["seconds"] / (len(split.train) // config.optim.batch_size)
        cost["train_clips_per_second"] = fastest["clips_per_second"]
    return cost


def _scored_views(config: TrainConfig, split: Split) -> int:
    from pipelines.evaluation.reading import ORDERS  # torch: late

    if not config.test:
        return 0
    orders = 1 + len(ORDERS) if config.data.probe else 1
    return sum(len(test.examples) for test in split.tests) * config.data.clips * config.data.crops * orders
