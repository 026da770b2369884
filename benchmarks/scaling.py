"""Measurements for docs/SCALING.md, and ratios that must hold; both sides of a ratio are measured in one run.

  driver      work of the driver and of each worker for a manifest of 10, 100 and 500 thousand rows
  loader      clips per second and core, read, and read and augmented; two processes against one
  parts       clips from a cold disk, in the order of the shards and in random order
  integrity   the first reading of 2 GB of shards, to find damage, against an epoch on them; and a later one
  compute     GMAC/s per core in training, with few and many class prompts
  checkpoint  size and time of the files written after an epoch: adapter, optimizer

The work of one core is measured in CPU time, so that other load on the machine does not change the figures; disks and
parallel processes are measured in wall time.

  python benchmarks/scaling.py [PART ...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from big_data import K400, make

if TYPE_CHECKING:
    from pipelines.config.schema import TrainConfig

FRAMES, SHAPE = 16, (16, 256, 340, 3)


def main() -> None:
    """Run the given parts, by default all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="PART")
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)  # for ``driver``: measure this size
    args = parser.parse_args()
    if args.rows:
        print(json.dumps(driver_at(args.rows)))
        return
    if unknown := set(args.part) - set(PARTS):
        parser.error(f"unknown part {', '.join(unknown)}; known parts: {', '.join(PARTS)}")
    for part in args.part or PARTS:
        PARTS[part]()


def timed(run: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    """Return the seconds that ``run`` takes, and its result."""
    started = clock()
    found = run()
    return clock() - started, found


# ---------------------------------------------------------------------------------------------------------- driver


def driver() -> None:
    """Print a line for each size, measured in its own process, and the growth from 10 to 100 thousand rows."""
    found = {}
    for rows in (10_000, 100_000, 500_000):
        done = subprocess.run(
            [sys.executable, __file__, "--rows", str(rows)], check=True, capture_output=True, text=True
        )
        found[rows] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"driver      {rows:>7,} rows: " + ", ".join(f"{name} {value:.3g}" for name, value in found[rows].items())
        )
    growth = {name: found[100_000][name] / max(found[10_000][name], 1e-6) for name in found[10_000]}
    print("driver      100,000 / 10,000: " + ", ".join(f"{name} {value:.1f}" for name, value in growth.items()))


def driver_at(rows: int) -> dict[str, float]:
    """Measure CPU seconds and bytes for a data set of ``rows`` videos."""
    from pipelines.planning import forecast
    from pipelines.planning.plan import plan_run
    from pipelines.protocols.make_split import make_split
    from pipelines.protocols.split import Source, clips_of
    from pipelines.shards.clip_store import ClipStore
    from pipelines.training.parts import Parts

    with tempfile.TemporaryDirectory() as folder:
        data = kinetics_like(Path(folder) / "data", rows)
        config = training_config(data, Path(folder) / "runs")
        before = resident()
        store = ClipStore(data)
        grown = resident() - before
        plan_run(config)  # the first call imports
        opening, store = timed(lambda: ClipStore(data))
        source = Source("big", str(data), clips_of(store.manifest), store.classes)
        splitting, split = timed(lambda: make_split(config.protocol, source, 1))
        planning, plan = timed(lambda: plan_run(config))
        looking, _ = timed(lambda: forecast.forecast(plan))
        cutting, parts = timed(lambda: Parts.cut(store, split.train, 256, 64))
        whole = Parts.cut(store, split.train, 256, 1)
        shuffling, _ = timed(lambda: next(whole.steps(1, 0, 0, 64)))
        shuffling_own, _ = timed(lambda: next(parts.steps(1, 0, 0, 64)))
        return {
            "open s": opening,
            "bytes a row": grown / rows,
            "make_split s": splitting,
            "plan s": planning,
            "forecast s": looking,
            "cut in parts s": cutting,
            "shuffle ms": 1e3 * shuffling,
            "shuffle own part ms": 1e3 * shuffling_own,
            "job MB": len(pickle.dumps(split)) / 1e6,
        }


def kinetics_like(folder: Path, rows: int) -> Path:
    """Make a data set of ``rows`` videos with the shares of training and test videos of Kinetics-400."""
    train = round(rows * K400["train"] / (K400["train"] + K400["test"]))
    return make(folder, train=train, test=rows - train, classes=400)


def training_config(data: Path, out: Path) -> TrainConfig:
    """Return the configuration of a linear probe on 64 workers."""
    from pipelines.config.resolve import resolve
    from pipelines.config.schema import TrainConfig

    overrides = [
        f"data.dir={data}",
        "protocol.name=supervised",
        "backbone.pretrained=toy",
        "optim.batch_size=256",
        "scale.workers=64",
        f"out={out}",
    ]
    return resolve(method="linear", preset=None, base=TrainConfig(), overrides=overrides)


def resident() -> int:
    """Return the memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---------------------------------------------------------------------------------------------------------- loader


def loader() -> None:
    """Print clips per second and core, and the gain from a second process."""
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder) / "data", train=128, test=2, classes=2, filled=True)
        augment(data, 1)  # the first call imports
        read(data, 128)  # fills the page cache
        reading, seconds = (timed(lambda work=work: work(data, 64))[0] for work in (read, augment))
        size = np.prod(SHAPE)
        print(
            f"loader      read {64 / reading:.0f} clips/s and core ({64 * size / reading / 1e9:.2f} GB/s of cached "
            f"pages), read and augmented {64 / seconds:.1f} ({64 * FRAMES / seconds:.0f} frames/s)"
        )
        wall = time.perf_counter
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(_warm, [data, data], chunksize=1)
            one = min(timed(lambda: pool.apply(augment, (data, 24)), wall)[0] for _ in range(3))
            two = min(timed(lambda: pool.starmap(augment, [(data, 24)] * 2, chunksize=1), wall)[0] for _ in range(3))
        print(f"loader      two processes / one: {2 * one / two:.2f} times the clips/s (2 cores; ideal 2)")


def _store(data: Path) -> tuple[Any, list[str]]:
    from pipelines.shards.clip_store import ClipStore

    store = ClipStore(data)
    return store, store.manifest.column("clip_id").to_pylist()


def _warm(data: Path) -> None:
    augment(data, 1)


def read(data: Path, count: int) -> None:
    """Copy the frames of ``count`` clips, as a batch does."""
    store, ids = _store(data)
    for clip in ids[:count]:
        np.ascontiguousarray(store.frames(clip)[np.arange(FRAMES)])


def augment(data: Path, count: int) -> None:
    """Read ``count`` clips and augment them on one core with the default settings."""
    import torch

    from pipelines.config.schema import AugmentConfig
    from pipelines.training.augment import Augment

    torch.set_num_threads(1)
    store, ids = _store(data)
    draw = Augment(AugmentConfig(), (224, 224), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    for seed, clip in enumerate(ids[:count]):
        draw(torch.from_numpy(np.ascontiguousarray(store.frames(clip)[np.arange(FRAMES)])), seed)


# ----------------------------------------------------------------------------------------------------------- parts


def parts() -> None:
    """Print clips per second from a disk whose pages are not in memory."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data = make(Path(folder) / "data", train=256, test=2, classes=2, filled=True)
        store, ids = _store(data)
        orders = {
            "in shard order": np.arange(len(ids)),
            "in random order": np.random.default_rng(0).permutation(len(ids)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in orders}
        for _ in range(3):
            for name, order in orders.items():
                store = _store(data)[0]
                forget(data)
                seconds[name].append(
                    timed(lambda o=order, s=store: [s.frames(ids[i]).sum() for i in o], time.perf_counter)[0]
                )
        rates = {name: len(ids) / min(found) for name, found in seconds.items()}
        print(
            "parts       cold disk: "
            + ", ".join(f"{rate:.0f} clips/s ({rate * np.prod(SHAPE) / 1e9:.2f} GB/s) {n}" for n, rate in rates.items())
            + f"; ratio {rates['in shard order'] / rates['in random order']:.2f}"
        )


def forget(data: Path) -> None:
    """Drop the shards' pages from the page cache."""
    for path in (data / "shards").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ------------------------------------------------------------------------------------------------------- integrity


def integrity() -> None:
    """Print the time of checking shards as a part of an epoch of MSTA on ViT-B/32, of which one step is measured."""
    from pipelines.shards.clip_store import ClipStore

    wall, said = time.perf_counter, []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data = make(Path(folder) / "data", train=512, test=2, classes=2, filled=True)
        seconds = []
        for cold in (True, False):
            store, ids = _store(data)
            if cold:
                forget(data)
            seconds.append(timed(lambda i=ids, s=store: s.check(i, lambda *numbers: said.append(numbers)), wall)[0])
        assert len(said) == 1  # the second time nothing was read
        ClipStore(data).verify()
    size = said[0][1]
    step = _msta_step(clips=4)
    step()
    epoch = timed(step, wall)[0] * len(ids) / 4
    print(
        f"integrity   {size / 1e9:.1f} GB read once from a cold disk in {seconds[0]:.2f} s "
        f"({size / seconds[0] / 1e9:.2f} GB/s), later {1000 * seconds[1]:.0f} ms; an epoch on {len(ids)} clips takes "
        f"{epoch:.0f} s: {seconds[0] / epoch:.2%} of the first, {seconds[1] / epoch:.3%} of others"
    )


def _msta_step(clips: int) -> Callable[[], None]:
    import torch

    from vlmodels import methods
    from vlmodels.clip import create

    cls = methods.get("msta")
    method = cls(create("ViT-B-32-quickgelu", weights=None, num_frames=8), cls.Config(alpha=0.0)).train()
    method.set_classes([f"doing thing {number}" for number in range(20)])
    video, labels = torch.randn(clips, 8, 3, 224, 224), torch.arange(clips)
    return lambda: sum(method.losses(method(video, labels), labels).values()).backward()


# --------------------------------------------------------------------------------------------------------- compute


def compute() -> None:
    """Print GMAC/s per core of one training step, and the share of the class prompts."""
    import torch

    from pipelines.planning.costs import step_cost
    from vlmodels import methods
    from vlmodels.clip import create

    torch.set_num_threads(1)
    cls, clips, frames = methods.get("msta"), 4, 8
    config = cls.Config(alpha=0.0)
    method = cls(create("ViT-B-32-quickgelu", weights=None, num_frames=frames), config).train()
    with torch.device("meta"):
        shapes = cls(create("ViT-B-32-quickgelu", weights=None, num_frames=frames), config)
    video, labels = torch.randn(clips, frames, 3, 224, 224), torch.arange(clips)

    def step() -> None:
        out = method(video, labels)
        sum(method.losses(out, labels).values()).backward()

    found, before = {}, resident()
    method.set_classes(["warm", "up", "is", "over"])
    step()
    for count in (20, 400):
        names = [f"doing thing {number}" for number in range(count)]
        method.set_classes(names)
        found[count], _ = timed(step)
        cost = step_cost(shapes, frames, names)
        grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"compute     MSTA on ViT-B/32, {clips} clips of {frames} frames, {count} classes: {found[count]:.1f} s, "
            f"{cost.gmacs(clips) / found[count]:.1f} GMAC/s and core; prompts are "
            f"{cost.text.training / cost.gmacs(clips):.0%} of the GMACs; kept {cost.kept(clips) / 1e6:.0f} MB by "
            f"shapes, measured {grown / 1e6:.0f} MB at most"
        )
    print(f"compute     400 classes / 20: {found[400] / found[20]:.2f} times a step")


# ------------------------------------------------------------------------------------------------------ checkpoint


def checkpoint() -> None:
    """Print size and time of what rank 0 writes after an epoch, for MSTA's 8.7 M parameters on ViT-B/16."""
    import torch

    from vlmodels.checkpoint import save_tensors

    learned = torch.nn.Parameter(torch.randn(8_712_192))
    optimizer = torch.optim.AdamW([learned])
    learned.sum().backward()
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        adapter, state = Path(folder) / "adapter.safetensors", Path(folder) / "optimizer.pt"
        wall = time.perf_counter
        first = timed(lambda: save_tensors(adapter, {"learned": learned.detach()}), wall)[0]
        second = timed(lambda: torch.save(optimizer.state_dict(), state), wall)[0]
        print(
            f"checkpoint  adapter {adapter.stat().st_size / 1e6:.1f} MB in {first:.2f} s, optimizer "
            f"{state.stat().st_size / 1e6:.1f} MB in {second:.2f} s"
        )


PARTS = {
    "driver": driver,
    "loader": loader,
    "parts": parts,
    "integrity": integrity,
    "compute": compute,
    "checkpoint": checkpoint,
}

if __name__ == "__main__":
    main()
