"""What may happen to a run: it ends like the undisturbed one."""

from __future__ import annotations

import os
import signal
import time

from tests.cluster.commands import Command, Failed
from tests.cluster.hosts import HEAD, WORKER
from tests.cluster.lab import Lab, check, record
from tests.cluster.services import BUCKET
from tests.cluster.steps import RUNS, compare

AWAY = 40
"""Seconds that a host is cut off: longer than Ray waits for it (``cluster.NOTICES``)."""
STORE_AWAY = 20


def worker_killed(lab: Lab) -> None:
    """A worker process on the second host is killed (-9): all go on from the last epoch."""
    out, command = _in_the_middle(lab, "worker-killed")
    lab.cluster.ssh("kill", WORKER, "pkill -9 -f '^ray::RayTrainWorker'")
    _ends_as_undisturbed(command, out, restarts=1)


def host_cut_off(lab: Lab) -> None:
    """The second host's cable is pulled for a while: Ray takes it for dead, takes it back, and all go on."""
    out, command = _in_the_middle(lab, "host-cut-off")
    lab.worker.cable(plugged=False)
    time.sleep(AWAY)
    lab.worker.cable(plugged=True)
    _ends_as_undisturbed(command, out, restarts=1)


def driver_killed(lab: Lab) -> None:
    """The script on the head is killed (-9); submitted again, it goes on after the last epoch."""
    out, command = _in_the_middle(lab, "driver-killed")
    lab.cluster.ssh("kill", HEAD, "pkill -9 -f '^python /root/b2n.py'")
    check(command.end(60) != 0, f"nobody noticed: {command}")
    again = lab.b2n("driver-again", out)
    again.wait_for("found an unfinished run")
    again.wait_for(r"going on after epoch [1-5]")
    _ends_as_undisturbed(again, out)


def store_away(lab: Lab) -> None:
    """The store does not answer for a while: the run waits for it."""
    out, command = _in_the_middle(lab, "store-away")
    os.kill(lab.services.store.process.pid, signal.SIGSTOP)
    time.sleep(STORE_AWAY)
    check("epoch 4/" not in command.said, f"did not miss the store: {command}")
    os.kill(lab.services.store.process.pid, signal.SIGCONT)
    _ends_as_undisturbed(command, out)


def _in_the_middle(lab: Lab, name: str) -> tuple[str, Command]:
    """A run that has trained two epochs of six."""
    out = f"s3://{BUCKET}/{name}"
    command = lab.b2n(name, out)
    command.wait_for(r"epoch 2/")
    return out, command


def _ends_as_undisturbed(command: Command, out: str, restarts: int = 0) -> None:
    if command.end(400):
        raise Failed(f"did not survive: {command}")
    done = record(out)
    check(done["restarts"] >= restarts, f"{done['restarts']} restarts: the fault had no effect: {command}")
    compare(done, record(RUNS))
