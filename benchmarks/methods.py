"""Seconds of a training step of each method, and their ratio to full fine-tuning of the same backbone.

A step is forward, losses, backward and AdamW on the same random clips. The methods take turns, so that other load on
the machine slows all of them. Multiply-accumulates are a lower bound of the ratios: a step of fine-tuning costs three
forward passes (one for the outputs, one each for the gradients of inputs and weights), a step of adapters costs two,
and a layer below the first adapter costs one. That is about 0.72 for adapters in all 12 layers and 0.55 for adapters in
layers 8-12, with the cost of the adapters themselves.

  python benchmarks/methods.py [--backbone ViT-B-16-quickgelu] [--batch 2] [--turns 3] [--only msta,lora]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from vlmodels import methods
from vlmodels.clip import create
from vlmodels.methods.base import Method

BASELINE = "finetune"
SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # label -> method, changes to its defaults
    "msta 1-12": ("msta", {"alpha": 0.0}),
    "msta 8-12": ("msta", {"alpha": 0.0, "dims": 128, "layers": "8-12"}),
    **{name: (name, {}) for name in methods.names() if name not in ("msta", "zeroshot", BASELINE)},
}


def main() -> None:
    """Time a step of each method and of fine-tuning in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", help="methods to time: names separated by commas")
    args = parser.parse_args()
    torch.set_num_threads(2)
    only = args.only.split(",") if args.only else [method for method, _ in SETTINGS.values()]
    size = create_size(args.backbone)
    frames = torch.randn(args.batch, args.frames, 3, *size, generator=torch.Generator().manual_seed(0))
    print(f"{args.backbone}, {args.batch} clips of {args.frames} frames, {args.classes} classes, CPU, fp32")
    print(f"{'':14} seconds  / fine-tuning (range)")
    for label, (name, changes) in SETTINGS.items():
        if name not in only:
            continue
        own, baseline = step_of(name, changes, args), step_of(BASELINE, {}, args)
        times: list[tuple[float, float]] = []
        for turn in range(args.turns + 1):
            pair = timed(own, frames), timed(baseline, frames)
            if turn:  # the first turn warms up
                times.append(pair)
        ratios = [a / b for a, b in times]
        seconds = statistics.median(a for a, _ in times)
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{label:14} {seconds:7.2f}  {statistics.median(ratios):.2f} {spread}", flush=True)
        del own, baseline
        gc.collect()


def create_size(backbone: str) -> tuple[int, int]:
    """Return the height and width (pixels) of a backbone's frames."""
    with torch.device("meta"):
        return create(backbone, weights=None).spec.image_size


def step_of(name: str, changes: Mapping[str, Any], args: argparse.Namespace) -> tuple[Method, torch.optim.Optimizer]:
    """Build a method with random weights, and its optimizer."""
    torch.manual_seed(0)
    cls = methods.get(name)
    classes = [f"class {i}" for i in range(args.classes)]
    method = cls(create(args.backbone, weights=None, num_frames=args.frames), cls.Config(**changes), classes)
    method.set_classes(classes)
    return method.train(), torch.optim.AdamW(method.trainable_parameters(), lr=1e-6)


def timed(step: tuple[Method, torch.optim.Optimizer], frames: torch.Tensor) -> float:
    """Return the seconds that one training step takes."""
    method, optimizer = step
    labels = torch.arange(len(frames)) % len(method.classes)
    started = time.perf_counter()
    loss = torch.stack(list(method.losses(method(frames, labels), labels).values())).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
