"""What holds a worker: Ray Train, or the process that asked; both tell its rank and keep its checkpoints."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from pipelines.records.home import Home


class Harness(Protocol):
    """A worker's view of where it runs."""

    rank: int
    world: int
    host: str  # name or address of the machine
    own_process: bool  # whether all that the process ever used was for this run

    def device(self) -> torch.device:
        """The device that is the worker's own."""

    def report(self, metrics: Mapping[str, Any], folder: Path) -> None:
        """Keep ``folder``, of which rank 0's counts, instead of what was kept before."""

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """What an earlier attempt kept last, or None."""


class RayHarness:
    """A rank of Ray Train, to be made inside of it."""

    own_process = True

    def __init__(self) -> None:
        import ray.train
        import ray.util

        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.host = ray.util.get_node_ip_address()

    def device(self) -> torch.device:
        """The device that Ray assigned."""
        import ray.train.torch

        device: torch.device = ray.train.torch.get_device()
        return device

    def report(self, metrics: Mapping[str, Any], folder: Path) -> None:
        """Hand the folder to Ray; all ranks must call."""
        import ray.train

        checkpoint = ray.train.Checkpoint.from_directory(str(folder)) if self.rank == 0 else None
        ray.train.report(dict(metrics), checkpoint=checkpoint, delete_local_checkpoint_after_upload=False)

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        """Ray's latest checkpoint, on this machine."""
        import ray.train

        kept = ray.train.get_checkpoint()
        if kept is None:
            yield None
            return
        with kept.as_directory() as place:
            yield Path(place)


class LocalHarness:
    """The only worker of a run, in this process: nothing has to start, and what was imported and read stays."""

    rank, world, host = 0, 1, platform.node()
    own_process = False

    def __init__(self, home: Home, name: str, *, gpu: bool) -> None:
        self._home, self._name, self._gpu = home, name, gpu

    def device(self) -> torch.device:
        """The first GPU that this process may use, if one was asked for.

        Raises:
            UserError: there is none.
        """
        import torch

        from vlmodels.errors import UserError

        if self._gpu and not torch.cuda.is_available():
            raise UserError("a GPU was asked for, but PyTorch sees none on this machine; leave out --gpu")
        return torch.device("cuda" if self._gpu else "cpu")

    def report(self, metrics: Mapping[str, Any], folder: Path) -> None:  # noqa: ARG002 - Ray's are for its own dashboard
        """Keep a copy of the folder."""
        self._home.keep(folder, self._name)

    def checkpoint(self) -> contextlib.AbstractContextManager[Path | None]:
        """The copy that was kept last."""
        return self._home.kept(self._name)
