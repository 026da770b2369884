"""What cannot work: found at the start, told in one line that names the place, and nothing is left running."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from tests.cluster.cluster import INSTALL
from tests.cluster.hosts import HEAD, WORKER
from tests.cluster.lab import Lab, check
from tests.cluster.services import BUCKET
from tests.cluster.steps import nothing_left

RAYS_OWN = "IDLE|[A-Za-z]*Agent|_AutoscalingCoordinatorActor|_StatsActor"  # they stay as long as the cluster
RUNNING = f"ps -eo args | grep -E '^(ray::|python .*b2n)' | grep -vE '^ray::({RAYS_OWN})' || true"


def wrong_bucket(lab: Lab) -> None:
    """A bucket that does not exist."""
    _refused(lab, "bucket", "no such bucket", out="s3://vidadept/runs")


def too_many_workers(lab: Lab) -> None:
    """More workers than the hosts have room for."""
    _refused(lab, "room", "3 workers need 3 CPUs but Ray has 2", "--set", "data.parts=3", workers=3)


def missing_gpu(lab: Lab) -> None:
    """GPUs that Ray promises, and no host has."""
    _refused(lab, "gpu", "Ray promises 1 GPUs there, PyTorch sees 0", "--gpu")


def other_version(lab: Lab) -> None:
    """Another version of the code on the second host."""
    lab.cluster.ssh("edit", WORKER, "echo '# edited on this host' >> ~/vidadapt/vlmodels/spec.py")
    try:
        _refused(lab, "version", f"{WORKER}: vidadapt 0.1.0 with sources")
    finally:
        lab.cluster.ssh("mend", WORKER, "sed -i '$d' ~/vidadapt/vlmodels/spec.py")


def missing_package(lab: Lab) -> None:
    """The project, then a package that it needs, is not installed on the second host."""
    lab.cluster.ssh("uninstall", WORKER, "python -m pip uninstall --yes vidadapt")
    try:
        _refused(lab, "package", f"{WORKER}: vidadapt is not installed")
    finally:
        lab.cluster.ssh("install", WORKER, INSTALL)
    hidden = [str(path) for path in Path(sysconfig.get_path("purelib")).glob("open_clip*")]
    lab.cluster.ssh("hide", WORKER, " && ".join(f"mount -t tmpfs tmpfs {path}" for path in hidden))
    try:
        _refused(lab, "package", f"{WORKER}: open_clip_torch")
    finally:
        lab.cluster.ssh("show", WORKER, f"umount {' '.join(hidden)}")


def _refused(
    lab: Lab, name: str, words: str, *more: str, out: str = f"s3://{BUCKET}/refused", workers: int = 2
) -> None:
    command = lab.b2n(name, out, *more, workers=workers)
    check(command.end(240) != 0, f"was not refused: {command}")
    errors = [line for line in command.said.splitlines() if line.startswith("error: ")]
    check(len(errors) == 1 and words in errors[0], f"not told in one line with '{words}': {command}")
    check("Traceback" not in command.said, f"a traceback: {command}")
    print(f"     {errors[0]}", flush=True)
    for address in (HEAD, WORKER):
        nothing_left(lab, address, RUNNING, seconds=30)
