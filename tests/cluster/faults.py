"""Faults during a run: it ends like the undisturbed one."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.commands import Command, Failed
from tests.cluster.hosts import HEAD, STOREROOM, WORKER
from tests.cluster.lab import EPOCHS, Lab, check, record
from tests.cluster.services import BUCKET
from tests.cluster.steps import RUNS, compare, wait_for_nodes

FIRST = "msta"
"""A method of the same settings that is done before the host is cut off."""
STORE_AWAY = 20
"""Seconds for which the store is away."""


def worker_killed(lab: Lab) -> None:
    """A worker process on the second host is killed (-9): all continue from the last epoch."""
    out, command = _in_the_middle(lab, "worker-killed")
    lab.cluster.ssh("kill", WORKER, "pkill -9 -f '^ray::RayTrainWorker'")
    _ends_as_undisturbed(command, out, restarts=1)


def host_cut_off(lab: Lab) -> None:
    """The second host's cable is pulled: the first continues alone, and takes the second in when it is back."""
    out, command = _in_the_middle(lab, "host-cut-off", "--set", "scale.min_workers=1", "--set", "scale.regrow_s=5")
    with _cut_off(lab):
        command.wait_for("lost rank")  # by its workers, or by its machine
        command.wait_for("1 worker is up")
    # Its epochs are shorter than a host takes to come back.
    lab.cluster.ssh("hold", HEAD, "pkill -STOP -f '^ray::RayTrainWorker'")
    try:
        wait_for_nodes(lab, 2)
    finally:
        lab.cluster.ssh("let-go", HEAD, "pkill -CONT -f '^ray::RayTrainWorker'")
    command.wait_for("continuing with 2 workers instead of 1")
    _ends_as_undisturbed(command, out, restarts=2, tolerance=1e-4)


def host_waited_for(lab: Lab) -> None:
    """Two methods in one command, the cable pulled in the second: it waits, and ends to the last digit the same."""
    out = f"s3://{BUCKET}/host-waited-for"
    command = lab.b2n("host-waited-for", out, "--method", f"{FIRST},adaptformer", "--set", "method.alpha=0")
    command.wait_for(rf"b2n-{FIRST}-\w+: scoring \d+ novel")
    command.wait_for(r"b2n-adaptformer-\w+: epoch 2/")
    with _cut_off(lab):
        command.wait_for("lost rank")
    _ends_as_undisturbed(command, out, restarts=1)
    first = record(out, FIRST)
    check(first["restarts"] == 0, f"{first['restarts']} restarts of the run that had ended: {command}")
    check(command.output.count(f"b2n-{FIRST}-") and f"{FIRST} " in command.output, f"not in the table: {command}")
    trained = re.findall(rf"b2n-{FIRST}-\w+: epoch (\d)/", command.output)
    check(trained == [str(epoch + 1) for epoch in range(EPOCHS)], f"the first trained epochs {trained}: {command}")


@contextmanager
def _cut_off(lab: Lab) -> Iterator[None]:
    lab.worker.cable(plugged=False)
    try:
        yield
    finally:
        lab.worker.cable(plugged=True)


def driver_killed(lab: Lab) -> None:
    """The script is killed (-9); submitted again, as a job, it continues, and waits for a store that is away."""
    out, command = _in_the_middle(lab, "driver-killed")
    lab.cluster.ssh("kill", HEAD, "pkill -9 -f '^python /root/b2n.py'")
    check(command.end(60) != 0, f"continued without its script: {command}")
    with lab.job("driver-again", out) as again:
        again.wait_for("found an unfinished run")
        again.wait_for(r"continuing after epoch [1-3]")
        _store_away(lab)
        check("epoch 6/" not in again.output, f"ended before the store was back: {again}")
        _ends_as_undisturbed(again, out)
    lines = [line for line in again.output.splitlines() if line.startswith("b2n-") and "epoch" in line]
    print("     " + "\n     ".join(lines), flush=True)


def _store_away(lab: Lab) -> None:
    """The store does not answer for a while, then refuses connections for as long."""
    os.kill(lab.services.store.process.pid, signal.SIGSTOP)
    time.sleep(STORE_AWAY / 2)
    try:
        for host in (HEAD, WORKER):  # the store's address is now one of the host's own, where nothing listens
            lab.cluster.ssh("refuse", host, f"ip address add {STOREROOM}/32 dev lo")
        time.sleep(STORE_AWAY / 2)
    finally:
        for host in (HEAD, WORKER):
            lab.cluster.ssh("answer", host, f"ip address del {STOREROOM}/32 dev lo")
        os.kill(lab.services.store.process.pid, signal.SIGCONT)


def _in_the_middle(lab: Lab, name: str, *more: str) -> tuple[str, Command]:
    """Start a run, and wait until it has trained two epochs of six."""
    out = f"s3://{BUCKET}/{name}"
    command = lab.b2n(name, out, *more)
    command.wait_for(r"epoch 2/")
    return out, command


def _ends_as_undisturbed(command: Command, out: str, restarts: int = 0, tolerance: float = 0.0) -> None:
    if command.end(400):
        raise Failed(f"did not survive: {command}")
    done = record(out)
    check(done["restarts"] >= restarts, f"{done['restarts']} restarts: the fault had no effect: {command}")
    compare(done, record(RUNS), tolerance)
