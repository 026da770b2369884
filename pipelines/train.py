"""``run_training``: one run from configuration to a finished folder; the only user of Ray's ``TorchTrainer``."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines import rundir
from pipelines.config import TrainConfig, digest_of
from pipelines.evaluate import harmonic_mean
from pipelines.plan import Plan, code_version, plan_run
from pipelines.progress import Mailbox, Progress
from pipelines.ray_session import connect
from pipelines.tracking import Tracker, flatten, register, shown
from pipelines.worker import Job, train_worker
from vlmodels.errors import UserError

SCHEMA = 2
"""Version of ``run.json``; raised when a field changes its meaning."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder (path or URI), its ``run.json``, and whether it was there already."""

    run_dir: str
    record: Mapping[str, Any]
    reused: bool

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of each test set, and ``hm`` for base-to-novel."""
        return self.record["metrics"]


def run_training(
    config: TrainConfig, *, fresh: bool = False, say: Callable[[str], None] = print, plan: Plan | None = None
) -> RunResult:
    """Train and score as ``config`` says, and leave ``OUT/NAME/{adapter.safetensors, config.json, run.json, ...}``.

    A run that is finished is not repeated; one that was cut off goes on at its last whole epoch. Both are
    recognised by their name, which is a digest of all that the result depends on; ``fresh`` starts over.

    Raises:
        UserError: for everything that the user can mend, before any worker starts where it can be seen then.
        RuntimeError: if workers failed more often than ``scale.max_failures`` allows.
    """
    plan = plan or plan_run(config)
    config = plan.config
    home = rundir.Home.at(config.out)
    if fresh:
        home.discard(plan.name)
    done = home.finished(plan.name)
    if done is not None:
        say(f"{plan.name}: unchanged, finished before; reusing {home.path(plan.name)}")
        return _registered(RunResult(home.path(plan.name), done, reused=True), home, config, say)
    if home.unfinished(plan.name):
        say(f"{plan.name}: found an unfinished run with the same settings; going on with it (--fresh starts over)")
    tracker = Tracker(config.tracking)
    tracker.start(config, plan.name, facts := _facts(plan))
    started = time.time()
    try:
        place, progress = _fit(plan, home, tracker, say)
        with place as folder:
            outcome = json.loads((folder / "outcome.json").read_text())
            for epoch in outcome["history"]:  # of an earlier driver, or while MLflow was away
                if epoch["epoch"] not in progress.logged:
                    tracker.epoch(int(epoch["epoch"]), epoch)
            record = _record(
                plan, outcome, facts, run_id=tracker.run_id, seconds=time.time() - started, progress=progress
            )
            tracker.results(_numbers(record["metrics"]))
            with tempfile.TemporaryDirectory(prefix="vidadapt-") as scratch:
                rundir.assemble(Path(scratch), folder, record)
                tracker.finish(Path(scratch))
                home.publish(Path(scratch), plan.name)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the first error is the one to show
            tracker.fail(f"{type(error).__name__}: {error}")
        raise
    return _registered(RunResult(home.path(plan.name), record, reused=False), home, config, say)


def _registered(result: RunResult, home: rundir.Home, config: TrainConfig, say: Callable[[str], None]) -> RunResult:
    """Register the finished run if the configuration asks for it."""
    if config.tracking.register:
        register_run(result, config, home=home, say=say)
    return result


def register_run(
    result: RunResult, config: TrainConfig, *, home: rundir.Home | None = None, say: Callable[[str], None] = print
) -> str:
    """Register a finished run under the name that ``config`` gives; return the model's URI."""
    with (home or rundir.Home.at(config.out)).local_copy(result.record["name"]) as folder:
        model = register(folder, config.tracking, result.record["tracking"].get("run_id"))
    say(f"{result.record['name']}: in the registry as {model}")
    return model


def _fit(
    plan: Plan, home: rundir.Home, tracker: Tracker, say: Callable[[str], None]
) -> tuple[contextlib.AbstractContextManager[Path], Progress]:
    """Run the workers; return the folder of the last checkpoint and what was heard of them."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    config = plan.config
    connect()
    _check_resources(config, ray.cluster_resources())
    with Progress(plan.name, config.optim.epochs, tracker, say) as progress:
        start = plan.start.read_bytes() if plan.start else b""
        job = Job(config, plan.split, plan.descriptions, Mailbox(progress.actor), start)
        resources = {"CPU": config.scale.cpus_per_worker} | ({"GPU": 1} if config.scale.gpu else {})
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if config.scale.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=config.scale.workers, use_gpu=config.scale.gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=plan.name,
                storage_path=home.scratch,
                failure_config=FailureConfig(max_failures=config.scale.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            progress.catch_up()
            if progress.mistake:
                raise UserError(f"{progress.mistake}; what was trained is kept, the same command goes on") from error
            raise RuntimeError(f"{plan.name}: workers failed again and again: {error}") from error
    answer = result.return_value or {}
    if "error" in answer:
        raise UserError(answer["error"])
    if result.checkpoint is None:
        raise RuntimeError(f"{plan.name}: the workers ended without a result; see {result.path}")
    return _as_folder(result.checkpoint), progress


@contextlib.contextmanager
def _as_folder(checkpoint: Any) -> Iterator[Path]:
    with checkpoint.as_directory() as place:
        yield Path(place)


def _check_resources(config: TrainConfig, cluster: Mapping[str, float]) -> None:
    scale = config.scale
    wanted = {"CPU": scale.workers * scale.cpus_per_worker} | ({"GPU": scale.workers} if scale.gpu else {})
    for kind, amount in wanted.items():
        have = cluster.get(kind, 0)
        if amount > have:
            raise UserError(
                f"{scale.workers} workers need {amount:g} {kind}s but Ray has {have:g}; "
                f"set scale.workers or scale.cpus_per_worker lower, or add nodes"
            )


def _facts(plan: Plan) -> dict[str, Any]:
    """What the machine and the code were."""
    import open_clip
    import ray
    import torch

    return {
        **plan.facts,
        "split_digest": plan.split.digest,
        "split_source": plan.split.source,
        "data_digest": plan.data_digest,
        "code_version": code_version(),
        "git": rundir.git_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "ray": ray.__version__,
        "descriptions_digest": digest_of(plan.descriptions) if plan.descriptions else "",
        "notes": list(plan.notes),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _record(
    plan: Plan,
    outcome: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    run_id: str | None,
    seconds: float,
    progress: Progress,
) -> dict[str, Any]:
    metrics = dict(outcome["metrics"])
    if {"base", "novel"} <= set(metrics):
        metrics["hm"] = harmonic_mean(metrics["base"]["top1"], metrics["novel"]["top1"])
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "group": plan.group,
        "protocol": plan.split.protocol,
        "dataset": plan.split.dataset,
        "method": plan.config.method,
        "preset": plan.config.preset,
        "seed": plan.config.seed,
        "scoring": asdict(plan.split.scoring) if plan.split.scoring else {},
        "lists": dict(plan.split.lists),
        "start": rundir.about_start(plan.start),
        "config": shown(plan.config),
        "metrics": metrics,
        "cost": {**outcome["cost"], "trainable": plan.facts["trainable"], "gmacs_video": plan.facts["gmacs_video"]},
        "history": outcome["history"],
        "selection": plan.config.selection,
        "epoch_kept": outcome["epoch_kept"],
        "facts": dict(facts),
        "classes": {t.name: list(t.classes) for t in plan.split.tests},
        "unscored": {t.name: [list(pair) for pair in t.unscored] for t in plan.split.tests},
        "seconds": {
            "total": seconds + sum(e["seconds"] for e in outcome["history"] if e["epoch"] not in progress.seen),
            "train": sum(epoch["seconds"] for epoch in outcome["history"]),
            "data_wait": sum(epoch["data_wait"] for epoch in outcome["history"]),
        },
        "restarts": progress.restarts,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "tracking": {"run_id": run_id},
    }


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every number by its path; MLflow's names have no ``@``."""
    return {
        key.replace(".", "/").replace("@", ""): float(value)
        for key, value in flatten(metrics).items()
        if isinstance(value, (int, float))
    }
