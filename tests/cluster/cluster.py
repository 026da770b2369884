"""The cluster of the two hosts, used through Ray's own commands alone; its file is the one that users edit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.commands import Command, Commands
from tests.cluster.hosts import HEAD, WORKER
from tests.cluster.services import MLFLOW, STORE

SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
# Seconds, not minutes, until a host that is cut off counts as dead, and until Ray Train does without it.
NOTICES = (
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=4000 RAY_health_check_failure_threshold=3 "
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=10"
)
INSTALL = (
    "~/.vidadapt/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable ~/vidadapt"
)


def cluster_file(project: Path, key: Path) -> dict:
    """Read ``deploy/local-hosts.yaml`` and make the edits that a user makes.

    The hosts have the pinned packages already (``hosts.py``), and one CPU each, so that a worker fills a host. Ray
    counts a GPU on each that is not there.
    """
    text = (project / "deploy" / "local-hosts.yaml").read_text()
    text = text.replace("http://10.0.0.10:5000", MLFLOW).replace("http://10.0.0.10:9000", STORE)
    config = yaml.safe_load(text)
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    config["file_mounts"] |= {"~/.aws/credentials": str(Path.home() / ".aws/credentials")}
    config["setup_commands"] = [config["setup_commands"][0], INSTALL]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        commands[-1] = re.sub("ray start", f"{NOTICES} ray start --num-cpus=1 --num-gpus=1", commands[-1])
    return config


class Cluster:
    """Ray's commands, as a user gives them."""

    def __init__(self, commands: Commands, project: Path, folder: Path, ray: str) -> None:
        self.commands, self.project, self.ray, self.key = commands, project, ray, folder / "key"
        self.file = str(folder / "cluster.yaml")
        Path(self.file).write_text(yaml.safe_dump(cluster_file(project, self.key), sort_keys=False))

    def up(self) -> str:
        """Start it."""
        self.commands.run("token", self.ray, "get-auth-token", "--generate")
        return self.commands.run("up", self.ray, "up", "--yes", "--no-config-cache", self.file, seconds=400)

    def down(self) -> str:
        """End it."""
        return self.commands.run("down", self.ray, "down", "--yes", self.file, seconds=200)

    def on_head(self, name: str, command: str, seconds: float = 120) -> str:
        """Run a command on the head; return what it printed."""
        return self.commands.run(name, self.ray, "exec", self.file, command, seconds=seconds)

    def copy(self, folder: Path, target: str) -> None:
        """Copy a folder to the head."""
        self.commands.run("copy", self.ray, "rsync-up", self.file, f"{folder}/", target)

    def submit(self, name: str, script: str, arguments: Sequence[str], *, ports: Sequence[int] = ()) -> Command:
        """Start a script on the head; ``ports`` of this machine lead to those of the head meanwhile."""
        forward = [part for port in ports for part in ("--port-forward", str(port))]
        return self.commands.start(name, self.ray, "submit", *forward, self.file, script, "--", *arguments)

    def tunnel(self) -> Command:
        """Open the way to the dashboard, which listens on the head's loopback alone."""
        command = self.commands.start("dashboard", self.ray, "dashboard", self.file, "--port", "8265")
        command.wait_for_port("127.0.0.1", 8265)
        return command

    def job(self, name: str, entry: Sequence[str]) -> Command:
        """Submit a job through the tunnel."""
        address = "http://127.0.0.1:8265"
        return self.commands.start(name, self.ray, "job", "submit", "--address", address, "--", *entry)

    def ssh(self, name: str, address: str, command: str, seconds: float = 120) -> str:
        """Run a command on a host by ssh, without Ray; return what it printed."""
        whole = f". ~/.vidadapt.env; {command}"
        return self.commands.run(name, "ssh", "-i", str(self.key), *SSH, f"root@{address}", whole, seconds=seconds)
