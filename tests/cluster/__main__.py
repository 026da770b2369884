"""Test that the same scripts run on two hosts: python -m tests.cluster. Needs Linux and root; touches nothing else.

The hosts are network, process and mount namespaces on this machine, with sshd in each. Everything ends with this
process, however it ends; the commands' output is kept if a step failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import faults, postgres, refusals, steps
from tests.cluster.commands import Failed
from tests.cluster.hosts import CHECKOUT, HEAD, isolated
from tests.cluster.lab import Lab

NEEDED = ("bring_up", "ingest")  # nothing works without them
STEPS: dict[str, Callable[[Lab], None]] = {
    step.__name__: step
    for step in (
        *(steps.bring_up, steps.ingest, steps.train, steps.registry, steps.pull, steps.serve, steps.submit_job),
        *(faults.worker_killed, faults.host_cut_off, faults.host_waited_for, faults.driver_killed),
        *(refusals.mistakes, refusals.other_version, refusals.missing_package),
        steps.take_down,
    )
}
TOOLS = {"/usr/sbin/sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps; return 0 if all of them pass, or if they cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--keep", action="store_true", help="wait at the end, to look around")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.inside:
        return _inside(args.inside, args.only or list(STEPS), keep=args.keep)
    if reason := _refusal():
        print(f"SKIPPED: {reason}")
        return 0
    work = Path(tempfile.mkdtemp(prefix="vidadapt-cluster-"))
    command = [sys.executable, "-m", "tests.cluster", "--inside", str(work), *(argv or sys.argv[1:])]
    code = 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process = subprocess.Popen(isolated(command), cwd=CHECKOUT)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = 130
    finally:
        process.kill()
        process.wait()
        if code:
            print(f"the output of each command is in {work}/logs, Ray's logs are in {work}/head/tmp/ray")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return code


def _refusal() -> str:
    """Return why the test cannot run here, or ""; install missing programs."""
    if platform.system() != "Linux":
        return f"hosts are made of Linux namespaces, this is {platform.system()}"
    if os.geteuid():
        return "namespaces with networks of their own need root"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing := missing + ([postgres.PACKAGE] if postgres.programs() is None else []):
        print(f"installing {', '.join(missing)}", flush=True)
        install = f"apt-get -qq update && apt-get -qq install --no-install-recommends {' '.join(missing)}"
        if shutil.which("apt-get") is None or subprocess.run(["sh", "-c", install], check=False).returncode:
            return f"{', '.join(missing)} cannot be installed"
    if importlib.util.find_spec(postgres.DRIVER) is None:
        return f"MLflow's server cannot speak to PostgreSQL without {postgres.DRIVER}: run make .venv/.installed"
    tried = subprocess.run(isolated(isolated(["true"])), check=False, capture_output=True, text=True)
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else ""


def _inside(work: Path, wanted: Sequence[str], *, keep: bool) -> int:
    started = time.monotonic()
    failed = []
    lab = Lab(work)
    for name, step in STEPS.items():
        if name not in wanted:
            continue
        before = time.monotonic()
        print(f"== {name}: {step.__doc__}", flush=True)
        try:
            step(lab)
        except Exception as error:  # noqa: BLE001 - the other steps may work
            failed.append(name)
            print(f"FAIL {time.monotonic() - before:.0f} s: {error}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc()
            if name in NEEDED:
                break
        else:
            print(f"PASS {time.monotonic() - before:.0f} s", flush=True)
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'all passed'} in {time.monotonic() - started:.0f} s")
    if keep:
        print(f"kept: nsenter --all --target PID of --inside {work}; ssh -i {lab.cluster.key} {HEAD}", flush=True)
        signal.pause()
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
