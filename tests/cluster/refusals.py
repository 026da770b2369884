"""Mistakes: found at the start, reported in one line that names the place, and nothing is left running."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from tests.cluster.cluster import INSTALL
from tests.cluster.commands import Command
from tests.cluster.hosts import HEAD, WORKER
from tests.cluster.lab import Lab, check
from tests.cluster.services import BUCKET
from tests.cluster.steps import nothing_left

REFUSED = f"s3://{BUCKET}/refused"
RAYS_OWN = "IDLE|[A-Za-z]*Agent|_AutoscalingCoordinatorActor|_StatsActor"  # they stay as long as the cluster
RUNNING = f"ps -eo args | grep -E '^(ray::|python .*b2n)' | grep -vE '^ray::({RAYS_OWN})' || true"


def mistakes(lab: Lab) -> None:
    """No such bucket; more workers than the hosts have room for; GPUs that Ray promises and no host has."""
    started = [
        (lab.b2n("bucket", "s3://vidadept/runs"), "no such bucket"),
        (lab.b2n("room", REFUSED, "--set", "data.parts=3", workers=3), "3 workers need 3 CPUs but Ray has 2"),
        (lab.b2n("gpu", REFUSED, "--gpu"), "Ray promises 1 GPUs there, PyTorch sees 0"),
    ]
    for command, words in started:
        _refused(command, words)
    _nothing_left(lab)


def other_version(lab: Lab) -> None:
    """Another version of the code on the second host."""
    lab.cluster.ssh("edit", WORKER, "echo '# edited on this host' >> ~/vidadapt/vlmodels/spec.py")
    try:
        _refused(lab.b2n("version", REFUSED), f"{WORKER}: vidadapt 0.1.0 with sources")
    finally:
        lab.cluster.ssh("mend", WORKER, "sed -i '$d' ~/vidadapt/vlmodels/spec.py")
    _nothing_left(lab)


def missing_package(lab: Lab) -> None:
    """The project, and a package that it needs, are not installed on the second host."""
    hidden = [str(path) for path in Path(sysconfig.get_path("purelib")).glob("open_clip*")]
    lab.cluster.ssh("uninstall", WORKER, "python -m pip uninstall --yes vidadapt")
    lab.cluster.ssh("hide", WORKER, " && ".join(f"mount -t tmpfs tmpfs {path}" for path in hidden))
    try:
        command = lab.b2n("package", REFUSED)
        _refused(command, f"{WORKER}: vidadapt is not installed")
        check("open_clip_torch" in command.output, f"the other package is not named: {command}")
    finally:
        lab.cluster.ssh("show", WORKER, f"umount {' '.join(hidden)}")
        lab.cluster.ssh("install", WORKER, INSTALL)
    _nothing_left(lab)


def _refused(command: Command, words: str) -> None:
    check(command.end(240) != 0, f"was not refused: {command}")
    errors = [line for line in command.output.splitlines() if line.startswith("error: ")]
    check(len(errors) == 1 and words in errors[0], f"not reported in one line with '{words}': {command}")
    check("Traceback" not in command.output, f"a traceback: {command}")
    print(f"     {errors[0]}", flush=True)


def _nothing_left(lab: Lab) -> None:
    for address in (HEAD, WORKER):
        nothing_left(lab, address, RUNNING, seconds=30)
