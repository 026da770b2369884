"""What training sends: the gradients of what learns, once a step, averaged as DDP alone would."""

from __future__ import annotations

import time

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.config.schema import AugmentConfig, OptimConfig
from pipelines.training.traffic import Traffic
from tests.helpers.pair_ranks import group, make_loop

WORLD = 3  # thirds round, halves do not


def class_loop(rank=0, world=1, classes=4, **optim):
    optim = OptimConfig(**{"lr": 3e-3, "epochs": 1, "warmup_epochs": 0, "batch_size": 8} | optim)
    return make_loop("msta", optim, AugmentConfig(), rank, world, classes=classes)


def epoch_of(loop):
    history = []
    loop.run(lambda _epoch, metrics, _optimizer: history.append(metrics))
    return history[0]


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def trained(rank, *, hooked=True, **optim):
    """Metrics of an epoch, what was learned and how much there is of it; without the hook, of DDP alone."""
    register = DistributedDataParallel.register_comm_hook
    if not hooked:
        DistributedDataParallel.register_comm_hook = lambda *_: None
    loop = class_loop(rank, WORLD, **optim)
    DistributedDataParallel.register_comm_hook = register
    return epoch_of(loop), loop.method.adapter_state_dict(), sum(p.numel() for p in loop.parameters)


def texts_run(rank):
    """Rows of texts that a rank runs from their tokens on, in an epoch with as many classes as are worth dividing."""
    loop, rows = class_loop(rank, WORLD, classes=64), []
    loop.method.backbone.model.token_embedding.register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    epoch_of(loop)
    return rows


def gradients(rank, traffic=None):
    """Gradients of a model with several buckets and a frozen layer, of which no two ranks see the same data."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(50, 50) for _ in range(4)))
    model[2].requires_grad_(False)
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.01, gradient_as_bucket_view=True)
    if traffic is not None:
        parallel.register_comm_hook(traffic, Traffic.reduce)
    torch.manual_seed(rank)
    found = []
    for _ in range(3):
        with parallel.no_sync():
            parallel(torch.randn(8, 50)).square().sum().backward()
        parallel(torch.randn(8, 50)).square().sum().backward()
        found += [p.grad.clone() for p in model.parameters() if p.requires_grad]
        model.zero_grad(set_to_none=True)
    return found


def waits_for_a_late_rank(rank):
    """Seconds that each rank waits where rank 0 comes late."""
    model, traffic = DistributedDataParallel(nn.Linear(4, 4)), Traffic()
    model.register_comm_hook(traffic, Traffic.reduce)
    dist.barrier()
    if rank == 0:
        time.sleep(1)
    model(torch.ones(1, 4)).sum().backward()
    return traffic.taken()[0], traffic.taken()


def in_one_rank(rank, folder):
    """Everything that ranks are asked for, in one go: processes are slow to start."""
    torch.set_num_threads(1)
    with group(folder, rank, WORLD):
        traffic = Traffic()
        found = {
            "plain": gradients(rank),
            "hooked": gradients(rank, traffic),
            "buckets": traffic.taken()[1],
            "late": waits_for_a_late_rank(rank),
            "alone": trained(rank, hooked=False),
            "counted": trained(rank),
            "texts": texts_run(rank),
            "passes": trained(rank, micro_batch=1),
            "passes alone": trained(rank, hooked=False, micro_batch=1),
        }
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(in_one_rank, (folder,), nprocs=WORLD)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_gradients_are_those_of_ddp_alone_bit_for_bit(ranks):
    for found in ranks:
        assert same(found["plain"], found["hooked"])
        assert same(found["hooked"], ranks[0]["hooked"])
        assert found["buckets"] == 3 * 4 * 3 * (50 * 50 + 50)  # steps, bytes, layers that learn; passes do not count


@pytest.mark.parametrize(("counted", "alone"), [("counted", "alone"), ("passes", "passes alone")])
def test_training_sends_four_bytes_for_each_number_that_learns_and_gives_what_it_gave(ranks, counted, alone):
    for found in ranks:
        (metrics, state, learned), (plain, plain_state, _) = found[counted], found[alone]
        assert metrics["network_bytes_per_step"] == 4 * learned
        assert 0 < metrics["network_wait"] < metrics["seconds"]
        assert plain["network_bytes_per_step"] == 0
        assert all(metrics[key] == plain[key] for key in ("loss", "ce", "train_top1"))
        assert same(state.values(), plain_state.values())


def test_the_wait_is_that_for_the_slowest_rank(ranks):
    late, *punctual = (found["late"] for found in ranks)
    assert all(seconds > 0.5 for seconds, _ in punctual)  # of one; the machine may be busy
    assert late[0] < min(punctual)[0]
    assert late[1] == (0, 0)  # taken already


def test_ranks_divide_many_classes_in_the_first_pass(ranks):
    assert [found["texts"] for found in ranks] == [[22], [22], [22]]


def test_one_worker_sends_nothing():
    metrics = epoch_of(class_loop())
    assert (metrics["network_wait"], metrics["network_bytes_per_step"]) == (0.0, 0.0)
