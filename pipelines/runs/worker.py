"""What one worker does: build, restore, train, score, and hand checkpoints to what holds it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.cluster.node_facts import Versions, differences
from pipelines.protocols.split import EvalSet
from vlmodels.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipelines.config.schema import TrainConfig
    from pipelines.evaluation.metrics import Scores
    from pipelines.protocols.split import Example, Split
    from pipelines.runs.contexts import Harness
    from pipelines.training.build import Descriptions
    from pipelines.training.parts import Parts
    from vlmodels.methods.base import Method


Said = TypeVar("Said")


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs, as it travels from the driver."""

    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    send: Callable[[dict[str, Any]], None]  # to the driver: progress and metrics
    start: bytes = b""  # adapter file to start from
    watched: bool = False  # whether held-out accuracy is asked for after every epoch
    expected: Versions | None = None  # what the machine must have (``node_facts.own``)


def train_worker(settings: dict[str, Job]) -> dict[str, Any]:
    """Entry point of every rank of Ray Train."""
    from pipelines.runs.contexts import RayHarness

    return work(settings["job"], RayHarness())


def work(job: Job, harness: Harness) -> dict[str, Any]:
    """Do the job.

    Returns ``{"error": ...}``, on all ranks alike, for what a retry would only repeat: a mistake of any rank's
    set-up, a loss that is no number. A mistake later on (a full disk) is told to the driver and raised, so that
    Ray frees the other ranks from their collectives, tries again, and keeps what was trained.
    """
    from pipelines.training.errors import DivergedError

    worker, problem = None, ""
    try:
        worker = _Worker(job, harness)
    except UserError as error:
        problem = str(error)
    problem = next(filter(None, _of_all_ranks(problem)), "")
    if worker is None or problem:
        return {"error": problem}
    try:
        worker.run()
    except DivergedError as error:
        return {"error": str(error), "diverged": True}
    except UserError as error:
        job.send({"kind": "mistake", "message": str(error)})
        raise
    return {}


def _of_all_ranks(own: Said) -> list[Said]:
    """What every rank says, on every rank."""
    from torch import distributed as dist

    if not dist.is_initialized():
        return [own]
    said = [own] * dist.get_world_size()
    dist.all_gather_object(said, own)
    return said


class _Worker:
    def __init__(self, job: Job, harness: Harness) -> None:
        import torch

        from pipelines.protocols.split import classes_of
        from pipelines.shards.clip_store import ClipStore
        from pipelines.training.build import build_method
        from vlmodels.checkpoint import load_into

        if unlike := differences(job.expected):  # a machine that joined after the cluster was checked
            raise UserError(f"{harness.host}: {unlike}")
        self.harness, self.rank, self.world = harness, harness.rank, harness.world
        self.job, self.config = job, job.config
        self.device = harness.device()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            torch.set_num_threads(max(1, int(self.config.scale.cpus_per_worker)))
        about = {"rank": self.rank, "world": self.world, "pid": os.getpid(), "host": harness.host}
        job.send({"kind": "worker", **about})
        self.store = ClipStore(self.config.data.dir or job.split.tests[0].data)
        others = {test.data for test in job.split.tests} - {""}
        self.stores = {"": self.store} | {folder: ClipStore(folder) for folder in sorted(others)}  # fail now, not then
        torch.manual_seed(self.config.seed)
        classes = classes_of(job.split)
        self.method: Method = build_method(self.config, frames=self.store.segments, classes=classes).to(self.device)
        if job.start:
            load_into(self.method, job.start)
        self.history: list[dict[str, float]] = []
        self.best: tuple[float, int] = (-1.0, 0)
        self.folder = Path(tempfile.mkdtemp(prefix="vidadapt-"))

    def run(self) -> None:
        """Train what is left to train, score, report."""
        try:
            if self._restore_final():
                return
            if self._trains():
                self._set_training_classes()
                self._train()
            self._finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _set_training_classes(self) -> None:
        if self.job.split.train_classes:  # retrieval has none
            self._set_classes(self.job.split.train_classes, self.job.descriptions)

    def _set_classes(self, names: Sequence[str], descriptions: Descriptions | None = None) -> None:
        """Set the classes; what a frozen text tower gives for them the ranks compute together, here."""
        import torch

        from vlmodels.shared import together

        self.method.set_classes(names, descriptions)
        if self.method.backbone.text_is_frozen():
            bf16 = self.config.optim.precision == "bf16"
            with together(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                self.method.encode_classes()

    def _trains(self) -> bool:
        return bool(self.method.trainable_parameters()) and bool(self.config.optim.epochs and self.job.split.train)

    # -------------------------------------------------------------------------------------------- training

    def _train(self) -> None:
        from pipelines.training.augment import Augment
        from pipelines.training.batches import TrainBatches
        from pipelines.training.loop import Loop
        from pipelines.training.mixing import Mixing
        from pipelines.training.parts import Parts

        spec, optim = self.method.backbone.spec, self.config.optim
        parts = Parts.cut(self.store, self.job.split.train, optim.batch_size, self.config.data.parts)
        group = self._group(parts)  # what is drawn by rank goes with the clips: a restart may hand them to another
        batches = TrainBatches(
            self.store,
            self.job.split.train,
            Augment(self.config.augment, spec.image_size, spec.mean, spec.std),
            batch_size=optim.batch_size,
            micro_batch=optim.micro_batch,
            rank=group,
            world=self.world,
            seed=self.config.seed,
            device=self.device,
            mixing=Mixing(self.config.augment, optim.label_smoothing, len(self.job.split.train_classes)),
            parts=parts,
        )
        loop = Loop(
            self.method,
            batches,
            optim,
            self.config.seed,
            self.device,
            group,
            self.world,
            on_step=self._on_step if self.rank == 0 else None,
            captions=self.job.split.captions or None,
        )
        loop.run(self._on_epoch, start_epoch=self._restore(loop.optimizer))

    def _group(self, parts: Parts) -> int:
        """Which parts of the clips this rank reads; their shards are fetched if the data lies in a store."""
        from pipelines.training.parts import groups_by_rank

        store, group = self.store, self.rank
        needed = parts.shards(store, self.job.split.train, self.world)
        if len(parts.members) > 1:
            held = [sum(store.cached(shard) for shard in shards) for shards in needed]
            group = groups_by_rank(_of_all_ranks(held))[self.rank]
        missing = [shard for shard in sorted(needed[group]) if not store.cached(shard)]
        started = time.perf_counter()
        store.fetch(missing)
        seconds = time.perf_counter() - started
        if missing:
            self.job.send({"kind": "fetched", "rank": self.rank, "shards": len(missing), "seconds": seconds})
        return group

    def _on_step(self, step: int, steps: int) -> None:
        if step % max(1, steps // 4) == 0:
            self.job.send({"kind": "step", "epoch": len(self.history) + 1, "step": step, "steps": steps})

    def _on_epoch(self, epoch: int, metrics: dict[str, float], optimizer: torch.optim.Optimizer) -> None:
        from vlmodels.checkpoint import save_tensors

        chooses, test_best = self.config.selection != "last", self.config.selection == "test-best"
        if chooses or (self.job.watched and self.job.split.select):
            metrics |= {f"select_{k}": v for k, v in (self._test_best() if test_best else self._held_out()).items()}
            self._set_training_classes()
        self.history.append({"epoch": float(epoch + 1), **metrics})
        reached = metrics.get("select_hm", metrics.get("select_top1", -1.0))
        if chooses and reached > self.best[0]:
            self.best = (reached, epoch + 1)
            save_tensors(self.folder / "best.safetensors", self.method.adapter_state_dict())  # every rank needs it
        if self.rank == 0:
            save_tensors(self.folder / "adapter.safetensors", self.method.adapter_state_dict())
            import torch

            torch.save(optimizer.state_dict(), self.folder / "optimizer.pt")
            state = {"epoch": epoch + 1, "history": self.history, "best": self.best}
            (self.folder / "state.json").write_text(json.dumps(state))
        self._report({"epoch": epoch + 1, "loss": metrics["loss"]})
        if self.rank == 0:  # the news is of what is handed over: it can hardly be lost any more
            self.job.send({"kind": "epoch", **self.history[-1]})

    def _test_best(self) -> dict[str, float]:
        """Top-1 of the first test list, on which the papers choose the epoch."""
        test = self.job.split.tests[0]
        metrics, _ = self._test(test, probe=False)
        return {"top1": float(metrics["t2v"]["R@1"] if test.captions else metrics["top1"])}

    def _held_out(self) -> dict[str, float]:
        """Top-1 and top-5 of the held-out training videos; recall of their captions, where pairs train.

        Where whole classes are held out too, also their own top-1 ("novel") and the harmonic mean of both ("hm").
        """
        from pipelines.evaluation.metrics import accuracy, harmonic_mean

        split = self.job.split
        if not split.captions:
            self._set_training_classes()
            metrics = accuracy(self._score(split.select))
            if split.select_novel is not None:
                self._set_classes(split.select_novel.classes)
                metrics["novel"] = accuracy(self._score(split.select_novel.examples))["top1"]
                metrics["hm"] = harmonic_mean(metrics["top1"], metrics["novel"])
            return metrics
        captions = tuple((split.captions[e.target],) for e in split.select)
        found, _ = self._test_pairs(EvalSet("select", (), split.select, captions=captions))
        return {"top1": found["t2v"]["R@1"], "top5": found["t2v"]["R@5"]}

    # ------------------------------------------------------------------------------------------ evaluation

    def _score(self, examples: Sequence[Example], data: str = "") -> Scores:
        from pipelines.evaluation.reading import NORMAL

        return self._score_orders(examples, data, (NORMAL,))[NORMAL]

    def _score_orders(self, examples: Sequence[Example], data: str, orders: Sequence[str]) -> dict[str, Scores]:
        from pipelines.evaluation.classes import score_orders

        return score_orders(
            self.method,
            self.stores[data],
            examples,
            self.config.data,
            orders,
            device=self.device,
            batch=self.config.scale.eval_batch,
            rank=self.rank,
            world=self.world,
            precision=self.config.optim.precision,
        )

    def _finish(self) -> None:
        """Score the test sets once, with the chosen epoch, and report the finished folder."""
        import numpy as np

        from pipelines.evaluation.cost import peak_memory_mb, speeds
        from vlmodels.checkpoint import load_tensors, save_adapter

        if self.best[1]:
            self.method.load_adapter_state_dict(load_tensors(self.folder / "best.safetensors"))
        metrics: dict[str, Any] = {}
        predictions: dict[str, Any] = {}
        if self.job.split.select:
            metrics["select"] = self._held_out()
        started = time.perf_counter()
        for test in self.job.split.tests if self.config.test else ():
            if self.rank == 0:
                self.job.send({"kind": "scoring", "set": test.name, "videos": len(test.examples)})
            metrics[test.name], found = self._test(test, probe=self.config.data.probe)
            predictions |= {f"{test.name}/{key}": value for key, value in found.items()}
        if self.rank == 0:
            final = self.folder / "final"
            final.mkdir()
            save_adapter(final, self.method, classes=self.job.split.train_classes)
            np.savez_compressed(final / "predictions.npz", allow_pickle=False, **predictions)
            kept = self.best[1] or len(self.history)
            seconds = time.perf_counter() - started
            memory = peak_memory_mb(self.device, own_process=self.harness.own_process)
            cost = memory | speeds(self.config, self.job.split, self.history, scoring_seconds=seconds)
            outcome = {"metrics": metrics, "history": self.history, "epoch_kept": kept, "cost": cost}
            (final / "outcome.json").write_text(json.dumps(outcome))
        self._report({"final": True}, "final")

    def _test(self, test: EvalSet, *, probe: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Metrics of a test set, and what is kept of its videos."""
        import numpy as np

        from pipelines.evaluation.metrics import accuracy, set_metrics
        from pipelines.evaluation.reading import NORMAL, ORDERS

        if test.captions:
            return self._test_pairs(test)
        self._set_classes(test.classes)
        orders = (NORMAL, *ORDERS) if probe else (NORMAL,)
        results = self._score_orders(test.examples, test.data, orders)
        metrics = set_metrics(test, results[NORMAL])
        if probe:
            metrics["probe"] = {order: accuracy(results[order], len(test.unscored)) for order in ORDERS}
        return metrics, {
            "clip_id": np.array([e.clip_id for e in test.examples]),
            "target": results[NORMAL].targets,
            "score": results[NORMAL].scores,
            "video": results[NORMAL].video,
            "text": self._class_features(),
        }

    def _test_pairs(self, test: EvalSet) -> tuple[dict[str, Any], dict[str, Any]]:
        import numpy as np

        from pipelines.evaluation.pairs import embed_pairs, pair_metrics

        found = embed_pairs(
            self.method,
            self.stores[test.data],
            test,
            self.config.data,
            device=self.device,
            batch=self.config.scale.eval_batch,
            rank=self.rank,
            world=self.world,
            precision=self.config.optim.precision,
        )
        return pair_metrics(test, found), {
            "clip_id": np.array([e.clip_id for e in test.examples]),
            "video": found.video.astype(np.float16),
            "text": found.text.astype(np.float16),
            "owner": found.owner,
        }

    def _class_features(self) -> np.ndarray:
        """Features (C,E) of the classes that are set, for the report's pictures."""
        import numpy as np
        import torch

        with torch.inference_mode():
            features: np.ndarray = self.method.encode_classes().float().cpu().numpy().astype(np.float16)
        return features

    # ----------------------------------------------------------------------------------------- checkpoints

    def _report(self, metrics: dict[str, Any], part: str = ".") -> None:
        self.harness.report(metrics, self.folder / part)

    def _restore(self, optimizer: torch.optim.Optimizer) -> int:
        """Take up the last reported epoch, if there is one; return the epoch to go on with (0-based)."""
        import torch

        from vlmodels.checkpoint import load_tensors

        with self.harness.checkpoint() as place:
            if place is None:
                return 0
            shutil.copytree(place, self.folder, dirs_exist_ok=True)
        self.method.load_adapter_state_dict(load_tensors(self.folder / "adapter.safetensors"))
        optimizer.load_state_dict(torch.load(self.folder / "optimizer.pt", map_location=self.device, weights_only=True))
        state = json.loads((self.folder / "state.json").read_text())
        self.history, self.best = state["history"], tuple(state["best"])
        if self.rank == 0:
            self.job.send({"kind": "resumed", "epoch": state["epoch"]})
        return int(state["epoch"])

    def _restore_final(self) -> bool:
        """Whether an earlier attempt had already reported the finished folder."""
        with self.harness.checkpoint() as place:
            return place is not None and (place / "outcome.json").is_file()
