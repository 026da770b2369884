"""Start a run's workers: one in this process, or ranks of Ray Train."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster.capacity import resources_of_worker
from pipelines.cluster.node_facts import own
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import connect
from pipelines.runs.contexts import LocalContext
from pipelines.runs.progress import Mailbox, Progress
from pipelines.runs.worker import Job, WorkerEnd, train_worker, work
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import ScaleConfig
    from pipelines.planning.plan import Plan
    from pipelines.records.home import Home


PATIENCE_S = 6 * 3600
"""For ranks that wait for one whose machine has no shard yet: docs/RAY.md#where-ranks-meet."""


@contextlib.contextmanager
def in_process(plan: Plan, home: Home, progress: Progress, *, watched: bool) -> Iterator[Path]:
    """Run one worker in this process; yield the folder of the finished run.

    Raises:
        DivergedError: the loss or a score is not finite.
        UserError: a mistake in the set-up.
    """
    context = LocalContext(home, plan.name, gpu=plan.config.scale.gpu)
    job = Job(plan.config, plan.split, plan.descriptions, progress.hear, start=_start_of(plan), watched=watched)
    _raise_error(work(job, context))
    with context.checkpoint() as folder:
        if folder is None:
            raise RuntimeError(f"{plan.name}: the worker ended without a result")
        yield folder


def check_machines(plan: Plan) -> list[str]:
    """Connect to Ray and check that its machines can run the workers; return notes for the reader.

    Raises:
        UserError: a machine that cannot run a worker, or too little in the cluster.
    """
    connect()
    return check_cluster(plan.config, data=plan.data)


@contextlib.contextmanager
def on_ray(plan: Plan, home: Home, progress: Progress, *, watched: bool) -> Iterator[Path]:
    """Run the workers on Ray, after ``check_machines``; yield the folder of the finished run.

    Raises:
        DivergedError: the loss or a score is not finite.
        UserError: a mistake in the set-up.
        RuntimeError: workers failed more often than ``scale.max_failures`` allows.
    """
    from ray.train import ControllerError, TrainingFailedError

    with progress:
        job = Job(
            plan.config,
            plan.split,
            plan.descriptions,
            Mailbox(progress.actor),
            start=_start_of(plan),
            watched=watched,
            expected=own(),
        )
        trainer = _trainer(plan, home, job)
        try:
            with own_interrupt():
                result = trainer.fit()
        except TrainingFailedError as error:
            progress.catch_up()
            if progress.mistake:
                raise UserError(
                    f"{progress.mistake}; what was trained is kept, the same command continues there"
                ) from error
            limit = (
                "" if isinstance(error, ControllerError) else f" (scale.max_failures={job.config.scale.max_failures})"
            )
            raise RuntimeError(f"{plan.name}: given up{limit}: {error}") from error
    _raise_error(result.return_value or WorkerEnd())
    if result.checkpoint is None:
        raise RuntimeError(f"{plan.name}: the workers ended without a result; see {result.path}")
    with result.checkpoint.as_directory() as folder:
        yield Path(folder)


def _trainer(plan: Plan, home: Home, job: Job) -> Any:
    """Return Ray Train's ``TorchTrainer`` for a run."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.cluster.process_group import TorchGroup
    from pipelines.runs.lost_workers import LossReporter

    scale = plan.config.scale
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchGroup(backend="nccl" if scale.gpu else "gloo", timeout_s=PATIENCE_S),
        scaling_config=ScalingConfig(
            num_workers=_workers(scale),
            elastic_resize_monitor_interval_s=scale.regrow_s,
            use_gpu=scale.gpu,
            resources_per_worker=resources_of_worker(scale),
        ),
        run_config=RunConfig(
            name=plan.name,
            storage_path=home.scratch,
            storage_filesystem=home.filesystem,  # ours: it waits for a store that is away
            failure_config=FailureConfig(max_failures=scale.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=[LossReporter(job.send)],
        ),
    )


def _workers(scale: ScaleConfig) -> int | tuple[int, int]:
    """Return Ray Train's number of workers, or the least and the most of them."""
    return (scale.min_workers, scale.workers) if 0 < scale.min_workers < scale.workers else scale.workers


@contextlib.contextmanager
def own_interrupt() -> Iterator[None]:
    """Put Ctrl-C's handler back after the block; Ray Train leaves its own: docs/RAY.md#sigint."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _start_of(plan: Plan) -> bytes:
    return plan.start.read_bytes() if plan.start else b""


def _raise_error(end: WorkerEnd) -> None:
    if end.error:
        raise (DivergedError if end.diverged else UserError)(end.error)
