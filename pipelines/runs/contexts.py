"""Where a worker runs: as a rank of Ray Train, or in the process that started the run."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import torch

    from pipelines.records.home import Home


class WorkerContext(Protocol):
    """A worker's view of where it runs: its rank, its device, and where its checkpoints go.

    Attributes:
        rank: of this worker.
        world: number of workers.
        host: name or address of the machine.
        first_on_host: whether no worker of the machine has a lower rank.
        own_process: whether the process does nothing but runs, one after the other.
        damaged: a line for each checkpoint that was passed over.
    """

    rank: int
    world: int
    host: str
    first_on_host: bool
    own_process: bool
    damaged: dict[str, None]

    def device(self) -> torch.device:
        """Return the device that is the worker's own."""

    def report(self, folder: Path) -> None:
        """Keep rank 0's ``folder`` in place of the one that was kept before; all ranks call."""

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """Open the folder that was kept last, by this attempt or an earlier one; None if there is none."""


class _KeptAtHome:
    """Checkpoints in the folder of the runs, whichever way the workers were started: either continues the other's."""

    rank = 0

    def __init__(self, home: Home, name: str) -> None:
        self._home = home
        self._name = name
        self.damaged: dict[str, None] = {}

    def report(self, folder: Path) -> None:
        """Keep a copy of rank 0's folder."""
        if self.rank == 0:
            self._home.keep(folder, self._name)

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """Open the copy that was kept last, or the one before if that is damaged."""
        return self._home.kept(self._name, self.damaged.setdefault)


class RayContext(_KeptAtHome):
    """The context of a rank of Ray Train; made inside of it.

    Args:
        home: where checkpoints are kept.
        name: of the run.
    """

    own_process = True

    def __init__(self, home: Home, name: str) -> None:
        import ray.train
        import ray.util

        super().__init__(home, name)
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world = context.get_world_size()
        self.host = ray.util.get_node_ip_address()
        self.first_on_host = context.get_local_rank() == 0

    @staticmethod
    def own_rank() -> int:
        """Return the rank of this process."""
        import ray.train

        return int(ray.train.get_context().get_world_rank())

    def device(self) -> torch.device:
        """Return the device that Ray assigned."""
        import ray.train.torch

        device: torch.device = ray.train.torch.get_device()
        return device


class LocalContext(_KeptAtHome):
    """The context of a run's only worker in this process, for a ``with`` block: imports and text features stay.

    Args:
        home: where checkpoints are kept.
        name: of the run.
        gpu: whether the worker uses a GPU.
        own_process: whether the process does nothing but runs, one after the other.
    """

    world = 1
    host = platform.node()
    first_on_host = True

    def __init__(self, home: Home, name: str, *, gpu: bool, own_process: bool) -> None:
        super().__init__(home, name)
        self._gpu = gpu
        self.own_process = own_process

    def __enter__(self) -> Self:
        import torch

        self._threads = torch.get_num_threads()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self._threads)  # a run takes those of its worker; what comes next has its own again

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
