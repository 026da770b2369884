"""Seconds of ``--help`` of the scripts, against a Python that starts and ends (best of 3).

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

SCRIPTS = ("ingest", "describe", "zero_shot", "few_shot", "b2n", "supervised", "retrieval", "sweep", "predict", "demo")
LIMIT = 2.0


def seconds(*command: str) -> float:
    """Run a command with this Python three times; return the least seconds."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    """Print one line for each script."""
    bare = seconds("-c", "")
    print(f"{'bare Python':12s} {bare:5.2f} s")
    for script in SCRIPTS:
        took = seconds("-m", f"pipelines.{script}", "--help")
        print(f"{script:12s} {took:5.2f} s  {took / bare:4.1f} x bare  {'ok' if took <= LIMIT else 'OVER 2 s'}")


if __name__ == "__main__":
    main()
