"""Where a worker runs: as a rank of Ray Train, or in the process that started the run."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from pipelines.records.home import Home


class WorkerContext(Protocol):
    """A worker's view of where it runs: its rank, its device, and where its checkpoints go.

    Attributes:
        rank: of this worker.
        world: number of workers.
        host: name or address of the machine.
        own_process: whether the process does nothing but this run.
    """

    rank: int
    world: int
    host: str
    own_process: bool

    def device(self) -> torch.device:
        """Return the device that is the worker's own."""

    def report(self, metrics: Mapping[str, float], folder: Path) -> None:
        """Keep rank 0's ``folder`` in place of the one that was kept before; all ranks call."""

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """Open the folder that was kept last, by this attempt or an earlier one; None if there is none."""


class RayContext:
    """The context of a rank of Ray Train; made inside of it."""

    own_process = True

    def __init__(self) -> None:
        import ray.train
        import ray.util

        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world = context.get_world_size()
        self.host = ray.util.get_node_ip_address()

    def device(self) -> torch.device:
        """Return the device that Ray assigned."""
        import ray.train.torch

        device: torch.device = ray.train.torch.get_device()
        return device

    def report(self, metrics: Mapping[str, float], folder: Path) -> None:
        """Hand rank 0's folder to Ray; all ranks must call."""
        import ray.train

        checkpoint = ray.train.Checkpoint.from_directory(str(folder)) if self.rank == 0 else None
        ray.train.report(dict(metrics), checkpoint=checkpoint, delete_local_checkpoint_after_upload=False)

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        """Open Ray's latest checkpoint, on this machine."""
        import ray.train

        kept = ray.train.get_checkpoint()
        if kept is None:
            yield None
            return
        with kept.as_directory() as folder:
            yield Path(folder)


class LocalContext:
    """The context of a run's only worker in this process: nothing has to start, imports and text features stay.

    Args:
        home: where checkpoints are kept.
        name: of the run.
        gpu: whether the worker uses a GPU.
    """

    rank = 0
    world = 1
    host = platform.node()
    own_process = False

    def __init__(self, home: Home, name: str, *, gpu: bool) -> None:
        self._home = home
        self._name = name
        self._gpu = gpu

    def device(self) -> torch.device:
        """Return the first GPU that this process may use if the run asks for one, else the CPU.

        Raises:
            UserError: there is no GPU.
        """
        import torch

        from vlmodels.errors import UserError

        if self._gpu and not torch.cuda.is_available():
            raise UserError("the run asks for a GPU, but PyTorch sees none on this machine; leave out --gpu")
        return torch.device("cuda" if self._gpu else "cpu")

    def report(self, metrics: Mapping[str, float], folder: Path) -> None:  # noqa: ARG002 - for Ray's dashboard only
        """Keep a copy of the folder."""
        self._home.keep(folder, self._name)

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """Open the copy that was kept last."""
        return self._home.kept(self._name)
