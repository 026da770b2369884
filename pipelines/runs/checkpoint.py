"""What a worker writes and reads again: a checkpoint after every epoch, and the folder of the finished run.

An epoch's checkpoint holds ``state.json``, ``adapter.safetensors``, ``optimizer.pt`` and, where an epoch is chosen,
``best.safetensors``. The finished folder holds ``adapter.safetensors``, ``predictions.npz`` and ``outcome.json``.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.records.kept import DamagedCheckpointError
from pipelines.records.run_file import PREDICTIONS
from pipelines.storage.place import why
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipelines.evaluation.metrics import Metrics
    from pipelines.runs.contexts import WorkerContext
    from pipelines.training.loop import Epoch
    from vlmodels.methods.base import Method

STATE = "state.json"
ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.pt"
BEST = "best.safetensors"
OUTCOME = "outcome.json"


@dataclass(frozen=True)
class TrainingState:
    """How far training is.

    Attributes:
        epoch: epochs trained.
        history: metrics of each of them, with its 1-based number as ``epoch``.
        best_score: what the best epoch reached, in percent.
        best_epoch: its number; 0 if no epoch is chosen.
    """

    epoch: int = 0
    history: tuple[Epoch, ...] = ()
    best_score: float = -1.0
    best_epoch: int = 0

    def with_epoch(self, epoch: int, metrics: Epoch) -> TrainingState:
        """Return the state after one more epoch, the 1-based ``epoch``."""
        return replace(self, epoch=epoch, history=(*self.history, {"epoch": float(epoch), **metrics}))

    def with_best(self, score: float) -> TrainingState:
        """Return the state with the last epoch as the best."""
        return replace(self, best_score=score, best_epoch=self.epoch)

    def write(self, folder: Path) -> None:
        """Write ``state.json``."""
        plain = {"epoch": self.epoch, "history": self.history, "best": (self.best_score, self.best_epoch)}
        (folder / STATE).write_text(json.dumps(plain))

    @classmethod
    def read(cls, folder: Path) -> TrainingState:
        """Read ``state.json``."""
        plain = json.loads((folder / STATE).read_text())
        best_score, best_epoch = plain["best"]
        return cls(int(plain["epoch"]), tuple(plain["history"]), best_score, best_epoch)


@dataclass(frozen=True)
class Outcome:
    """What the workers of a finished run leave for its record.

    Attributes:
        metrics: of the held-out videos (``select``) and of each test set.
        history: metrics of each epoch.
        epoch_kept: number of the epoch that was scored.
        cost: memory and speeds of the first rank.
        decision: what was chosen on the held-out videos, as in ``run.json``; None where nothing was.
    """

    metrics: Mapping[str, Metrics]
    history: Sequence[Epoch]
    epoch_kept: int
    cost: Mapping[str, float]
    decision: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``outcome.json``."""
        return {
            "metrics": self.metrics,
            "history": self.history,
            "epoch_kept": self.epoch_kept,
            "cost": self.cost,
            "decision": self.decision,
        }

    def write(self, folder: Path) -> None:
        """Write ``outcome.json``."""
        (folder / OUTCOME).write_text(json.dumps(self.to_json()))

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Read ``outcome.json``."""
        return cls(**json.loads((folder / OUTCOME).read_text()))


class Checkpoints:
    """Saves and restores a worker's progress through its context; a context manager with a folder of its own.

    All ranks call every method: rank 0 writes what is kept, but each keeps the best epoch, as each scores it.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="vidadapt-"))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def finished(self) -> bool:
        """Return whether an earlier attempt left the finished folder."""
        with self._context.checkpoint() as kept:
            return kept is not None and (kept / OUTCOME).is_file()

    def restore(self, method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> TrainingState:
        """Load the last epoch that was kept into method and optimizer; return its state, a new one if none was.

        Raises:
            DamagedCheckpointError: it cannot be used.
        """
        import torch

        from vlmodels.checkpoint import load_tensors

        with self._context.checkpoint() as kept:
            if kept is None:
                return TrainingState()
            with disk_errors(str(self._folder)):
                shutil.copytree(kept, self._folder, dirs_exist_ok=True)
        try:
            method.load_adapter_state_dict(load_tensors(self._folder / ADAPTER))
            optimizer.load_state_dict(torch.load(self._folder / OPTIMIZER, map_location=device, weights_only=True))
            return TrainingState.read(self._folder)
        except Exception as error:  # whatever a foreign or half-written file makes of torch's readers
            raise DamagedCheckpointError(
                f"the run's checkpoint cannot be used ({type(error).__name__}: {str(error).strip()[:200]}); "
                "start the run over with --fresh"
            ) from error

    def save_best(self, method: Method) -> None:
        """Write the adapter of the best epoch, to be kept with the next ``save``."""
        from vlmodels.checkpoint import save_tensors

        with disk_errors(str(self._folder)):
            save_tensors(self._folder / BEST, method.adapter_state_dict())

    def load_best(self, method: Method) -> None:
        """Load the adapter of the best epoch."""
        from vlmodels.checkpoint import load_tensors

        method.load_adapter_state_dict(load_tensors(self._folder / BEST))

    def save(self, state: TrainingState, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Keep the epoch that just ended."""
        import torch

        from vlmodels.checkpoint import save_tensors

        if self._context.rank == 0:
            with disk_errors(str(self._folder)):
                save_tensors(self._folder / ADAPTER, method.adapter_state_dict())
                torch.save(optimizer.state_dict(), self._folder / OPTIMIZER)
                state.write(self._folder)
        self._report(self._folder)

    def write_model(self, method: Method, classes: Sequence[str], predictions: Mapping[str, np.ndarray]) -> None:
        """Begin the finished folder, on rank 0, with the adapter and the predictions."""
        import numpy as np

        from vlmodels.checkpoint import save_adapter

        final = self._folder / "final"
        final.mkdir()
        with disk_errors(str(final)):
            save_adapter(final, method, classes=classes)
            np.savez_compressed(final / PREDICTIONS, allow_pickle=False, **predictions)

    def write_outcome(self, outcome: Outcome) -> None:
        """Complete the finished folder, on rank 0: with its outcome it is whole."""
        with disk_errors(str(self._folder)):
            outcome.write(self._folder / "final")

    def keep_final(self) -> None:
        """Keep the finished folder."""
        self._report(self._folder / "final")

    def _report(self, folder: Path) -> None:
        with disk_errors("the folder of the runs"):
            self._context.report(folder)


@contextlib.contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Turn the errors of a disk that is full, or cannot be written, into a message.

    Raises:
        UserError: something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(_unwritten(where, why(error))) from error
    except Exception as error:
        # torch and safetensors have errors of their own for a file that cannot be written.
        if not re.search(r"No space left|File too large|quota exceeded|I/O ?error|inline_container", str(error)):
            raise
        raise UserError(_unwritten(where, str(error).strip().splitlines()[0][:120])) from error


def _unwritten(where: str, reason: str) -> str:
    return f"{where} cannot be written: {reason}; free some space (TMPDIR names the folder for temporary files)"
