"""One worker of a run: it builds the model, restores, trains, has it scored, and keeps checkpoints.

Imports of torch are late: the driver and the scripts import this file for ``Job`` alone.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pipelines.cluster.node_facts import Versions, differences
from pipelines.runs.board import WorkerEnd
from pipelines.runs.checkpoint import Checkpoints, Outcome, TrainingState
from pipelines.runs.progress import (
    Checking,
    EpochDone,
    Fetched,
    Mistake,
    Resumed,
    ScoringStarted,
    Send,
    StepDone,
    WorkerUp,
)
from pipelines.runs.system_load import LoadSampler
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch

    from pipelines.config.schema import TrainConfig
    from pipelines.evaluation.decision import Decided
    from pipelines.evaluation.metrics import Metrics
    from pipelines.evaluation.scorer import SetResult
    from pipelines.protocols.split import Split
    from pipelines.records.home import Home
    from pipelines.runs.board import Jobs
    from pipelines.runs.contexts import WorkerContext
    from pipelines.shards.clip_store import ClipStore
    from pipelines.shards.integrity import Announce
    from pipelines.training.build import Descriptions
    from pipelines.training.loop import Epoch, Loop
    from pipelines.training.parts import Parts
    from vlmodels.methods.base import Method


Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs, as it travels from the driver.

    Attributes:
        name: of the run.
        home: where its checkpoints are kept.
        config: of the run.
        split: what is trained on and scored.
        descriptions: sentences about the training classes, if the method needs them.
        start: content of the adapter file to start from.
        watched: whether held-out accuracy is wanted after every epoch.
        expected: what the worker's machine must be like (``node_facts.own`` of the driver).
    """

    name: str
    home: Home
    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    start: bytes = b""
    watched: bool = False
    expected: Versions | None = None


def train_worker(settings: dict[str, Jobs]) -> None:
    """Do one job after the other as a rank of Ray Train: the entry point of each."""
    from pipelines.runs.contexts import RayContext

    jobs = settings["jobs"]
    first = RayContext.own_rank() == 0
    while name := _from_all_ranks(jobs.next() if first else "")[0]:
        job: Job = jobs.get(name)
        end = work(job, RayContext(job.home, name), jobs.mailbox(name))
        if first:
            jobs.end(name, end)
        del job
        gc.collect()  # give the model's memory back to the next job


def work(job: Job, context: WorkerContext, send: Send) -> WorkerEnd:
    """Do the job; ``send`` takes messages to the driver.

    Errors that a retry would only repeat are returned, on all ranks alike: a mistake in any rank's set-up, a loss that
    is not finite. A mistake later on (a full disk) is reported to the driver and raised, so that Ray frees the other
    ranks from their collectives, tries again, and keeps what was trained.
    """
    from pipelines.records.kept import DamagedCheckpointError
    from pipelines.training.errors import DivergedError

    worker = None
    problem = ""
    try:
        worker = _Worker(job, context, send)
    except UserError as error:
        problem = str(error)
    problem = next(filter(None, _from_all_ranks(problem)), "")
    if worker is None or problem:
        return WorkerEnd(problem)
    every_s = job.config.tracking.system_metrics_s if context.first_on_host else 0.0
    try:
        with LoadSampler(context.host, send, every_s, gpu=job.config.scale.gpu):
            worker.run()
    except DivergedError as error:
        return WorkerEnd(str(error), diverged=True)
    except DamagedCheckpointError as error:
        return WorkerEnd(str(error))
    except UserError as error:
        send(Mistake(str(error)))
        raise
    return WorkerEnd()


def _from_all_ranks(own: Value) -> list[Value]:
    """Return the values of all ranks, on every rank."""
    from torch import distributed as dist

    if not dist.is_initialized():
        return [own]
    values = [own] * dist.get_world_size()
    dist.all_gather_object(values, own)
    return values


class _Worker:
    """One rank of a run. All ranks make the same calls in the same order: many of them are collectives."""

    def __init__(self, job: Job, context: WorkerContext, send: Send) -> None:
        from pipelines.evaluation.scorer import Scorer

        if unlike := differences(job.expected):  # a machine that joined after the cluster was checked
            raise UserError(f"{context.host}: {unlike}")
        self.job = job
        self.send = send
        self.config = job.config
        self.context = context
        self.rank = context.rank
        self.world = context.world
        self.device = _prepare_device(context, job.config)
        send(WorkerUp(self.rank, self.world, os.getpid(), context.host))
        self.stores = _open_stores(job)
        _check_shards(job, self.stores, lambda shards, size: send(Checking(self.rank, shards, size)))
        self.method = _build(job, self.stores[""], self.device)
        self.scorer = Scorer(
            self.method,
            self.stores,
            job.split,
            job.config,
            device=self.device,
            rank=self.rank,
            world=self.world,
        )
        self.checkpoints = Checkpoints(context)
        self.state = TrainingState()

    def run(self) -> None:
        """Train what is left to train, score, and keep the finished folder."""
        with self.checkpoints:
            if self.checkpoints.finished():
                return
            if self._trains():
                with self.scorer.classes(self.job.split.train_classes, self.job.descriptions):
                    self._train()
            self._finish()

    def _trains(self) -> bool:
        return bool(self.method.trainable_parameters() and self.config.optim.epochs and self.job.split.train)

    # -------------------------------------------------------------------------------------------- training

    def _train(self) -> None:
        loop = self._make_loop()
        self.state = self.checkpoints.restore(self.method, loop.optimizer, self.device)
        if self.state.epoch and self.rank == 0:
            self.send(Resumed(self.state.epoch, tuple(self.context.damaged)))
        loop.run(self._on_epoch, start_epoch=self.state.epoch)

    def _make_loop(self) -> Loop:
        from pipelines.training.build import build_loop
        from pipelines.training.parts import Parts

        store, train = self.stores[""], self.job.split.train
        parts = Parts.cut(store, train, self.config.optim.batch_size, self.config.data.parts)
        return build_loop(
            self.config,
            self.job.split,
            self.method,
            store,
            parts,
            group=self._choose_group(parts),
            world=self.world,
            device=self.device,
            on_step=self._on_step if self.rank == 0 else None,
        )

    def _choose_group(self, parts: Parts) -> int:
        """Return the group of parts that this rank reads, after fetching its shards if the data lies in a store."""
        from pipelines.training.parts import groups_by_rank

        store = self.stores[""]
        group = self.rank
        needed = parts.shards(store, self.job.split.train, self.world)
        if len(parts.members) > 1:
            held = [sum(store.cached(shard) for shard in shards) for shards in needed]
            group = groups_by_rank(_from_all_ranks(held))[self.rank]
        missing = [shard for shard in sorted(needed[group]) if not store.cached(shard)]
        started = time.perf_counter()
        store.fetch(missing)
        if missing:
            self.send(Fetched(self.rank, len(missing), time.perf_counter() - started))
        return group

    def _on_step(self, step: int, steps: int) -> None:
        if step % max(1, steps // 4) == 0:
            self.send(StepDone(self.state.epoch + 1, step, steps))

    def _on_epoch(self, epoch: int, metrics: Epoch, optimizer: torch.optim.Optimizer) -> None:
        chooses = self.config.selection != "last"
        if chooses or (self.job.watched and self.job.split.select):
            metrics |= {f"select_{name}": value for name, value in self.scorer.selection().items()}
        self.state = self.state.with_epoch(epoch + 1, metrics)
        score = metrics.get("select_hm", metrics.get("select_top1", -1.0))
        if chooses and score > self.state.best_score:
            self.state = self.state.with_best(score)
            self.checkpoints.save_best(self.method)
        self.checkpoints.save(self.state, self.method, optimizer)
        if self.rank == 0:  # only now: what is reported is kept, and can hardly be lost any more
            self.send(EpochDone(self.state.history[-1]))

    # ------------------------------------------------------------------------------------------- finishing

    def _finish(self) -> None:
        """Score the held-out videos and the test sets with the chosen epoch, and keep the finished folder."""
        if self.state.best_epoch:
            self.checkpoints.load_best(self.method)
        metrics: dict[str, Metrics] = {}
        if self.job.split.select:
            metrics["select"] = {**self.scorer.held_out()}
        decided = self.scorer.decide()
        started = time.perf_counter()
        results = self._score_tests(metrics, decided)
        seconds = time.perf_counter() - started
        decided = self._measured(decided, results)
        if self.rank == 0:
            self.checkpoints.write_model(self.method, self.job.split.train_classes, _predictions(results))
            cost = self._cost(seconds)
            decision = None if decided is None else decided.to_json()
            self.checkpoints.write_outcome(
                Outcome(metrics, self.state.history, self.state.best_epoch or self.state.epoch, cost, decision)
            )
        self.checkpoints.keep_final()

    def _score_tests(self, metrics: dict[str, Metrics], decided: Decided | None) -> dict[str, SetResult]:
        """Add the metrics of each test set; return the results of all."""
        temperature = None if decided is None else decided.temperature
        results: dict[str, SetResult] = {}
        for test in self.job.split.tests if self.config.test else ():
            if self.rank == 0:
                self.send(ScoringStarted(test.name, len(test.examples)))
            result = self.scorer.test(test, probe=self.config.data.probe, temperature=temperature)
            metrics[test.name] = result.metrics
            results[test.name] = result
        return results

    def _measured(self, decided: Decided | None, results: Mapping[str, SetResult]) -> Decided | None:
        """Return the decision with what it does to the test sets."""
        if decided is None:
            return None
        temperature = decided.temperature
        for test in self.job.split.tests if results else ():
            answers = self.scorer.answers(test, results[test.name], temperature)
            decided = decided if answers is None else decided.with_set(test.name, answers)
        return decided

    def _cost(self, scoring_seconds: float) -> dict[str, float]:
        from pipelines.evaluation.cost import peak_memory_mb, speeds

        memory = peak_memory_mb(self.device, own_process=self.context.own_process)
        return memory | speeds(self.config, self.job.split, self.state.history, scoring_seconds=scoring_seconds)


def _predictions(results: Mapping[str, SetResult]) -> dict[str, np.ndarray]:
    return {f"{name}/{part}": array for name, result in results.items() for part, array in result.predictions.items()}


def _prepare_device(context: WorkerContext, config: TrainConfig) -> torch.device:
    import torch

    from pipelines.evaluation.cost import reset_peak_memory

    device = context.device()
    reset_peak_memory(device)
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(config.scale.cpus_per_worker)))
    return device


def _open_stores(job: Job) -> dict[str, ClipStore]:
    """Open the ingested data by ``EvalSet.data``; here, so that what cannot be opened fails before training."""
    from pipelines.shards.clip_store import ClipStore

    stores = {"": ClipStore(job.config.data.dir or job.split.tests[0].data)}
    others = {test.data for test in job.split.tests} - {""}
    return stores | {folder: ClipStore(folder) for folder in sorted(others)}


def _check_shards(job: Job, stores: dict[str, ClipStore], announce: Announce) -> None:
    """Find damaged shards before training, of all clips that the run reads."""
    split = job.split
    tests = (*split.tests, *split.unseen) if job.config.test else ()
    novel = split.select_novel.examples if split.select_novel is not None else ()
    own = [("", examples) for examples in (split.train, split.select, novel)]
    read = [*own, *((test.data, test.examples) for test in tests)]
    for data, store in stores.items():
        store.check([one.clip_id for folder, examples in read if folder == data for one in examples], announce)


def _build(job: Job, store: ClipStore, device: torch.device) -> Method:
    import torch

    from pipelines.protocols.split import classes_of
    from pipelines.training.build import build_method
    from vlmodels.checkpoint import load_into

    torch.manual_seed(job.config.seed)
    method: Method = build_method(job.config, frames=store.segments, classes=classes_of(job.split)).to(device)
    if job.start:
        load_into(method, job.start)
    return method
