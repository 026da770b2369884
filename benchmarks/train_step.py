"""Step time of our training loop against a bare PyTorch loop with the same modules.

Bare: the clips are one uint8 array in memory; gather, the same augmentation, forward, loss, backward, AdamW.
Ours: the same through ``ClipStore`` (memory-mapped shards, ingested here), ``TrainBatches`` and ``Loop``, with
prefetching, shares of ranks and metrics. The two take turns, so that other load on the machine slows both.

  python benchmarks/train_step.py [--backbone ViT-B-16-quickgelu] [--batch 4]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipelines.config.schema import AugmentConfig, OptimConfig
from pipelines.protocols.split import Example
from pipelines.shards.clip_store import ClipStore
from pipelines.training.augment import Augment
from pipelines.training.batches import TrainBatches
from pipelines.training.loop import Loop
from vlmodels import methods
from vlmodels.clip import create

CLASSES = 20


def main() -> None:
    """Run both loops in turn and print median step times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="toy")
    parser.add_argument("--method", default="msta")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="steps per turn")
    parser.add_argument("--turns", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(2)

    with tempfile.TemporaryDirectory() as folder:
        method = build(args)
        size = min(method.backbone.spec.image_size)
        store, pools, examples = make_data(Path(folder), size, args.batch * args.steps)
        augment = Augment(AugmentConfig(), (size, size), method.backbone.spec.mean, method.backbone.spec.std)
        loop = ours(method, store, examples, augment, args)
        bare_method = build(args)
        optimizer = torch.optim.AdamW(bare_method.trainable_parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-3)
        times: dict[str, list[float]] = {"bare": [], "ours": []}
        for turn in range(args.turns + 1):
            bare = timed(lambda: bare_epoch(bare_method, optimizer, pools, examples, augment, batch=args.batch))
            own = timed(lambda turn=turn: loop.epoch(turn))  # an epoch is one turn
            if turn:  # the first turn warms up
                times["bare"].append(bare / args.steps)
                times["ours"].append(own / args.steps)
    ratios = [o / b for o, b in zip(times["ours"], times["bare"], strict=True)]
    for name, values in times.items():
        print(f"{name}  {1000 * statistics.median(values):8.1f} ms a step (median of {len(values)} turns)")
    print(f"ours / bare  {statistics.median(ratios):.3f}  (from {min(ratios):.3f} to {max(ratios):.3f}; target <= 1.1)")


def build(args: argparse.Namespace) -> methods.base.Method:
    """Build the method in training mode."""
    torch.manual_seed(0)
    cls = methods.get(args.method)
    config = cls.Config(**({"alpha": 0.0, "layers": "all"} if args.method == "msta" else {}))
    method = cls(create(args.backbone, weights=None, num_frames=8), config)
    method.set_classes([f"class {i}" for i in range(CLASSES)])
    return method.train()


def make_data(folder: Path, size: int, count: int) -> tuple[ClipStore, np.ndarray, list[Example]]:
    """Ingest ``count`` videos of noise; return the store, its frames as one array in memory, and the examples."""
    from pipelines import ingest
    from pipelines.toyworld.world import write_video

    side = size * 8 // 7
    for i in range(count):
        noise = torch.randint(256, (16, side, side, 3), generator=torch.Generator().manual_seed(i)).to(torch.uint8)
        label = folder / "videos" / f"class {i % CLASSES}"
        label.mkdir(parents=True, exist_ok=True)
        write_video(noise, label / f"{i}.mp4")
    out = folder / "data"
    ingest.main(["--videos", str(folder / "videos"), "--out", str(out), "--size", str(size), "--pool", "1"])
    store = ClipStore(out)
    ids = store.manifest.column("clip_id").to_pylist()
    labels = store.manifest.column("label").to_pylist()
    examples = [Example(clip, store.classes.index(label)) for clip, label in zip(ids, labels, strict=True)]
    return store, np.stack([store.frames(clip) for clip in ids]), examples


def ours(method, store, examples, augment, args) -> Loop:  # noqa: ANN001
    """Build our loop; an epoch of it is one turn."""
    optim = OptimConfig(epochs=1000, batch_size=args.batch)
    batches = TrainBatches(
        store,
        examples,
        augment,
        batch_size=args.batch,
        micro_batch=0,
        rank=0,
        world=1,
        seed=1,
        device=torch.device("cpu"),
    )
    return Loop(method, batches, optim, 1, torch.device("cpu"))


def bare_epoch(method, optimizer, pools, examples, augment, *, batch: int) -> None:  # noqa: ANN001
    """Train one epoch with a loop written without this project."""
    order = np.random.default_rng().permutation(len(examples))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        frames = torch.stack([augment(torch.from_numpy(pools[i]), int(i)) for i in chosen])
        targets = torch.tensor([examples[i].target for i in chosen])
        loss = nn.functional.cross_entropy(method(frames).logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def timed(run) -> float:  # noqa: ANN001
    """Return the seconds that ``run`` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
