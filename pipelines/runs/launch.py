"""How a job's workers are started: ranks of Ray Train, or one worker in this process."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster.node_facts import own
from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import connect
from pipelines.runs.contexts import LocalHarness
from pipelines.runs.progress import Mailbox, Progress
from pipelines.runs.worker import Job, train_worker, work
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.schema import ScaleConfig, TrainConfig
    from pipelines.planning.plan import Plan
    from pipelines.records.home import Home


PATIENCE_S = 6 * 3600
"""For ranks that wait for one whose machine has no shard yet; that a worker is lost, Ray finds out by itself."""


@contextlib.contextmanager
def here(plan: Plan, home: Home, progress: Progress, *, watched: bool) -> Iterator[Path]:
    """Run one worker in this process; yields the folder of the finished run.

    Raises:
        UserError: a mistake in the set-up, or a loss that is no number (``DivergedError``).
    """
    harness = LocalHarness(home, plan.name, gpu=plan.config.scale.gpu)
    job = Job(plan.config, plan.split, plan.descriptions, progress.hear, _start_of(plan), watched)
    _raise_said(work(job, harness))
    with harness.checkpoint() as folder:
        if folder is None:
            raise RuntimeError(f"{plan.name}: the worker ended without a result")
        yield folder


def checked(plan: Plan) -> list[str]:
    """Connect to Ray and see whether its machines can run the workers; return what a reader should know.

    Raises:
        UserError: a machine that cannot run a worker, or too little in the cluster.
    """
    connect()
    return check_cluster(plan.config, data=plan.data)


@contextlib.contextmanager
def on_ray(plan: Plan, home: Home, progress: Progress, *, watched: bool) -> Iterator[Path]:
    """Run the workers on Ray, ``checked`` before; yields the folder of the finished run.

    Raises:
        UserError: a mistake in the set-up, or a loss that is no number (``DivergedError``).
        RuntimeError: workers failed more often than ``scale.max_failures`` allows.
    """
    from ray.train import (
        CheckpointConfig,
        ControllerError,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchTrainer

    from pipelines.cluster.process_group import TorchGroup
    from pipelines.runs.losses import ControllerNews

    config = plan.config
    with progress:
        job = Job(config, plan.split, plan.descriptions, Mailbox(progress.actor), _start_of(plan), watched, own())
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job},
            torch_config=TorchGroup(backend="nccl" if config.scale.gpu else "gloo", timeout_s=PATIENCE_S),
            scaling_config=ScalingConfig(
                num_workers=_workers(config.scale),
                elastic_resize_monitor_interval_s=config.scale.regrow_s,
                use_gpu=config.scale.gpu,
                resources_per_worker=resources_of_worker(config),
            ),
            run_config=RunConfig(
                name=plan.name,
                storage_path=home.scratch,
                storage_filesystem=home.filesystem,  # ours: it waits for a store that is away
                failure_config=FailureConfig(max_failures=config.scale.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                callbacks=[ControllerNews(job.send)],
            ),
        )
        try:
            with own_interrupt():
                result = trainer.fit()
        except TrainingFailedError as error:
            progress.catch_up()
            if progress.mistake:
                raise UserError(f"{progress.mistake}; what was trained is kept, the same command goes on") from error
            limit = "" if isinstance(error, ControllerError) else f" (scale.max_failures={config.scale.max_failures})"
            raise RuntimeError(f"{plan.name}: given up{limit}: {error}") from error
    _raise_said(result.return_value or {})
    if result.checkpoint is None:
        raise RuntimeError(f"{plan.name}: the workers ended without a result; see {result.path}")
    with result.checkpoint.as_directory() as place:
        yield Path(place)


def _workers(scale: ScaleConfig) -> int | tuple[int, int]:
    """Ray Train's number of workers; of two, it goes on with what it can have, at least the first."""
    return (scale.min_workers, scale.workers) if 0 < scale.min_workers < scale.workers else scale.workers


@contextlib.contextmanager
def own_interrupt() -> Iterator[None]:
    """Put Ctrl-C's handler back: Ray Train leaves its own, which would end what comes later with exit code 0."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def resources_of_worker(config: TrainConfig) -> dict[str, float]:
    """What one worker takes of a cluster."""
    scale = config.scale
    return {"CPU": scale.cpus_per_worker} | ({"GPU": scale.gpus_per_worker} if scale.gpu else {})


def _start_of(plan: Plan) -> bytes:
    return plan.start.read_bytes() if plan.start else b""


def _raise_said(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise (DivergedError if answer.get("diverged") else UserError)(answer["error"])
