"""The load of a worker's machine, under the names of MLflow's system metrics, sent to the driver like any message.

Workers need no MLflow for it, nor its address and keys. Read from Linux's /proc and from nvidia-smi, so that nothing
is imported; elsewhere there are no samples.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pipelines.runs.progress import LoadSampled, Send

_PROC = Path("/proc")
_FIRST_S = 1.0
"""Seconds until the first sample, so that a short run has one."""
_GPU_QUERY = ("index", "utilization.gpu", "memory.used", "memory.total", "power.draw", "enforced.power.limit")
_WAIT_S = 5.0


class LoadSampler:
    """Sends samples during a ``with`` block; what cannot be measured is left out, and never fails a run.

    Args:
        host: name or address of this machine.
        send: takes the samples.
        every_s: seconds between two samples; 0: none.
        gpu: whether the GPUs are looked at.
        proc: folder of Linux's process information.
    """

    def __init__(self, host: str, send: Send, every_s: float, *, gpu: bool = False, proc: Path = _PROC) -> None:
        self._host = host
        self._send = send
        self._every_s = every_s
        self._gpu = gpu
        self._proc = proc
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._every_s > 0 and (self._proc / "stat").is_file():
            self._thread = threading.Thread(target=self._follow, name="system-load", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_WAIT_S)

    def _follow(self) -> None:
        times = _cpu_times(self._proc)
        wait = min(_FIRST_S, self._every_s)
        while not self._stop.wait(wait):
            wait = self._every_s
            before, times = times, _cpu_times(self._proc)
            sample = {**_cpu_load(before, times), **_memory(self._proc), **_network(self._proc), **_disk()}
            self._send(LoadSampled(self._host, {**sample, **(_gpus() if self._gpu else {})}))


def _cpu_times(proc: Path) -> tuple[int, int]:
    """Return the ticks of all CPUs since the machine started: those that worked, and all."""
    try:
        fields = [int(field) for field in (proc / "stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return sum(fields) - sum(fields[3:5]), sum(fields)  # idle, and waiting for a disk


def _cpu_load(before: tuple[int, int], now: tuple[int, int]) -> dict[str, float]:
    passed = now[1] - before[1]
    return {"cpu_utilization_percentage": 100 * (now[0] - before[0]) / passed} if passed > 0 else {}


def _memory(proc: Path) -> dict[str, float]:
    try:
        lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
        kib = {fields[0]: int(fields[1]) for fields in lines if len(fields) > 1}
        used = kib["MemTotal:"] - kib["MemAvailable:"]
        percentage = 100 * used / kib["MemTotal:"]
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return {}
    return {"system_memory_usage_megabytes": used * 1024 / 1e6, "system_memory_usage_percentage": percentage}


def _network(proc: Path) -> dict[str, float]:
    """Return what all interfaces but the loopback have received and sent since the machine started."""
    try:
        lines = (line.partition(":") for line in (proc / "net" / "dev").read_text().splitlines()[2:])
        counts = [rest.split() for name, _, rest in lines if name.strip() != "lo"]
        received, sent = sum(int(count[0]) for count in counts), sum(int(count[8]) for count in counts)
    except (OSError, ValueError, IndexError):
        return {}
    return {"network_receive_megabytes": received / 1e6, "network_transmit_megabytes": sent / 1e6}


def _disk() -> dict[str, float]:
    try:
        usage = shutil.disk_usage("/")
    except OSError:
        return {}
    used = {"disk_usage_percentage": 100 * usage.used / usage.total, "disk_usage_megabytes": usage.used / 1e6}
    return {**used, "disk_available_megabytes": usage.free / 1e6}


def _gpus() -> dict[str, float]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_WAIT_S).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    return gpu_load(output)


def gpu_load(table: str) -> dict[str, float]:
    """Return the load of each GPU in nvidia-smi's table (CSV without units); values that it does not know are left out.

    Memory in megabytes, power in watts.
    """
    load: dict[str, float] = {}
    for line in table.splitlines():
        values = dict(zip(_GPU_QUERY, (_number(field) for field in line.split(",")), strict=False))
        index = values.pop("index", None)
        if index is None:
            continue
        memory, power = values.get("memory.used"), values.get("power.draw")
        found = {
            "utilization_percentage": values.get("utilization.gpu"),
            "memory_usage_megabytes": None if memory is None else memory * (1 << 20) / 1e6,
            "memory_usage_percentage": _share(memory, values.get("memory.total")),
            "power_usage_watts": power,
            "power_usage_percentage": _share(power, values.get("enforced.power.limit")),
        }
        load |= {f"gpu_{index:.0f}_{name}": value for name, value in found.items() if value is not None}
    return load


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # such as [N/A]
        return None


def _share(part: float | None, whole: float | None) -> float | None:
    return 100 * part / whole if part is not None and whole else None


def metric_names(sample: Mapping[str, float], host: str, *, several: bool) -> dict[str, float]:
    """Return a sample under MLflow's names, with the machine among several in them."""
    return {f"system/{host}/{name}" if several else f"system/{name}": value for name, value in sample.items()}
