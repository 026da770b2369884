"""Training in one process or in several that talk through gloo; a module of its own, as processes import it."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager

import torch
from torch import distributed as dist

from pipelines.config.schema import AugmentConfig, OptimConfig
from pipelines.protocols.split import Example
from pipelines.training.augment import Augment
from pipelines.training.batches import TrainBatches
from pipelines.training.loop import Loop
from tests.helpers.fakes import FakeStore
from vlmodels import methods
from vlmodels.clip import create

CPU = torch.device("cpu")
COLOURS = ("black", "red", "green", "yellow")  # FakeStore's classes
STORE = FakeStore()
CAPTIONS = tuple(
    text for clip in range(24) for text in (f"clip {clip} is {COLOURS[clip % 4]}", f"a {COLOURS[clip % 4]} picture")
)
PAIRS = tuple(Example(f"clip{row // 2}", row) for row in range(48))
CONFIG = {
    "msta": {"layers": "3-4", "dims": 8, "alpha": 0.0, "dropout": 0.0},
    "viltclip": {"tokens": 4},
    "m2clip": {"dims": 8, "text_dims": 8},
    "finetune": {},
}


def make_method(name, **settings):
    """A method on the toy backbone with random weights, always the same ones."""
    torch.manual_seed(0)
    cls = methods.get(name)
    return cls(create("toy", weights=None, num_frames=4), cls.Config(**CONFIG[name] | settings))


def make_loop(name, optim, augment, rank=0, world=1, *, classes=0, captions=None, mixing=None, **settings):
    """A loop over the 24 clips of some classes, or over their 48 pairs with captions."""
    method = make_method(name, **settings)
    if classes:
        method.set_classes([f"class {i}" for i in range(classes)])
    batches = TrainBatches(
        STORE,
        STORE.examples if captions is None else PAIRS,
        Augment(augment, (48, 48), (0.5,) * 3, (0.5,) * 3),
        batch_size=optim.batch_size,
        micro_batch=optim.micro_batch,
        rank=rank,
        world=world,
        seed=1,
        device=CPU,
        mixing=mixing,
    )
    return Loop(method, batches, optim, 1, CPU, rank, world, captions=captions)


def pair_loop(name, rank=0, world=1, **optim):
    optim = OptimConfig(**{"lr": 3e-3, "epochs": 2, "warmup_epochs": 0, "batch_size": 8} | optim)
    return make_loop(name, optim, AugmentConfig(jitter=0, gray=0), rank, world, captions=CAPTIONS)


def trained(name, rank=0, world=1, **optim):
    """Return the metrics of each epoch, the gradients of the first step, and what was learned."""
    loop = pair_loop(name, rank, world, **optim)
    gradients, step = [], loop.optimizer.step

    def noted_step(*args, **kwargs):
        if not gradients:
            gradients.extend(p.grad.clone() for p in loop.parameters)
        return step(*args, **kwargs)

    loop.optimizer.step = noted_step
    history = []
    loop.run(lambda _epoch, metrics, _optimizer: history.append(metrics))
    return {"history": history, "gradients": gradients, "state": loop.method.adapter_state_dict()}


def in_two_ranks(function, folder, *args):
    """Return what ``function(rank, world, *args)`` gives in each of two processes."""
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(function, str(folder), rank, args)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(300)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(2)]


@contextmanager
def group(folder, rank, world):
    """A gloo process group."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _rank(function, folder, rank, args):
    torch.set_num_threads(1)
    with group(folder, rank, 2):
        torch.save(function(rank, 2, *args), f"{folder}/{rank}.pt")
