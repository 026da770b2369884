"""What the steps share: hosts, services, cluster, commands, and the run that all of them repeat."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.commands import Command, Commands, Failed
from tests.cluster.hosts import CHECKOUT, HEAD, PRIVATE, WORKER, Host, build_bridge, cover, name_all, run
from tests.cluster.services import BUCKET, ENVIRONMENT, Services

DATA = f"s3://{BUCKET}/data/toy-ucf"
EPOCHS = 6
SETTINGS = (
    *("method.dims=32", "method.dropout=0", "optim.lr=3e-3", f"optim.epochs={EPOCHS}", "optim.warmup_epochs=1"),
    *("optim.batch_size=32", "data.parts=2"),
)
RUN = ("--method", "adaptformer", *(part for setting in SETTINGS for part in ("--set", setting)))
PROJECT = (
    *("vlmodels", "llm_descriptions", "tune_spaces", "pipelines", "tests", "deploy"),
    *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
)


def run_flags(out: str, workers: int = 2) -> list[str]:
    """Flags of the run that all steps repeat."""
    return ["--data", DATA, "--out", out, "--workers", str(workers), *RUN]


class Lab:
    """Two hosts on a bridge, and this process as the user of both."""

    def __init__(self, work: Path) -> None:
        self.work, self.python = work, sys.executable
        cover(work / "outside", PRIVATE, keep_writable=[work, CHECKOUT, Path(sys.prefix)], keep=[Path(sys.base_prefix)])
        name_all(work)
        build_bridge()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / "key"))
        public = (work / "key.pub").read_text()
        self.head, self.worker = (
            Host(name, address, work / name, public) for name, address in (("head", HEAD), ("worker", WORKER))
        )
        # A copy: what is edited meanwhile would be another version on each host.
        self.project = work / "project"
        for name in PROJECT:
            copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy2
            self.project.mkdir(exist_ok=True)
            copy(CHECKOUT / name, self.project / name)
        self.commands = Commands(work / "logs", self.project, ENVIRONMENT)
        self.world = self.commands.start("world", self.python, "-m", "tests.cluster.world", str(work / "world"))
        self.alone: Command | None = None
        self.services = Services(self.commands, self.python, work)
        self.cluster = Cluster(self.commands, self.project, work, str(Path(sys.executable).with_name("ray")))

    def b2n(self, name: str, out: str, *more: str, workers: int = 2) -> Command:
        """Submit the run."""
        return self.cluster.submit(name, "pipelines/b2n.py", [*run_flags(out, workers), *more])

    @contextmanager
    def job(self, name: str, out: str) -> Iterator[Command]:
        """Submit the run as a job, through the tunnel to the dashboard."""
        tunnel = self.cluster.tunnel()
        try:
            yield self.cluster.job(name, ["python", "-m", "pipelines.b2n", *run_flags(out)])
        finally:
            tunnel.stop()


def check(true: bool, message: str) -> None:
    """Fail with ``message`` unless it is true."""
    if not true:
        raise Failed(message)


def record(out: str, method: str = "adaptformer") -> dict[str, Any]:
    """Return ``run.json`` of the only run of a method below ``out``."""
    found = [info.path for info in files(out) if info.path.endswith("/run.json") and f"/b2n-{method}-" in info.path]
    check(len(found) == 1, f"{out} has {len(found)} finished runs of {method}")
    with store().open_input_stream(found[0]) as stream:
        return json.loads(stream.read())


def store() -> Any:
    """Open the S3 store."""
    from pipelines.storage.place import Place

    return Place.open(f"s3://{BUCKET}").filesystem


def files(uri: str) -> Sequence[Any]:
    """List what lies below ``uri``."""
    from pyarrow import fs

    return store().get_file_info(fs.FileSelector(uri.removeprefix("s3://"), recursive=True, allow_not_found=True))


def losses(of: dict[str, Any]) -> list[float]:
    """Return the loss of each epoch."""
    return [epoch["loss"] for epoch in of["history"]]
