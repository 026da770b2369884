"""Seconds of a training step of MSTA, and their ratio to full fine-tuning, on a backbone of each family.

As in ``benchmarks/methods.py``, a step is forward, losses, backward and AdamW on the same random clips. Here the two
methods take turns on every backbone: pair by pair, so that other load on the machine slows both. The ratio is the
median of the pairs'; "fastest" is that of the fastest step of each, which a busy machine disturbs least. Weights are
random; token ids too, where a tokenizer of Hugging Face would be fetched. Some towers are cut to their first layers, as
``--layers`` does for all; the printout has the layers of image and text tower.

  python -m benchmarks.backbones [--only PE-Core-B-16,EVA02-B-16] [--layers 0] [--batch 2] [--frames 4] [--turns 3]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
from torch import Tensor

from benchmarks.methods import BASELINE, timed
from vlmodels import methods
from vlmodels.backbone import Backbone
from vlmodels.methods.base import Method
from vlmodels.tokenizers import Tokenizer, WordCounter, tokenizer_of
from vlmodels.weight_files import build

TARGET = 0.8
BACKBONES = {  # name -> first layers of each tower that are kept; 0: all
    "ViT-B-16": 0,
    "ViT-L-14-CLIPA": 6,
    "ViT-B-16-SigLIP2": 0,
    "PE-Core-B-16": 12,
    "EVA02-B-16": 0,
    "MobileCLIP2-B": 0,
    "ViTamin-S": 0,
}
CONSISTENCY_OFF = {"alpha": 0.0}  # no descriptions here; their features would come out of a cache


class RandomIds(WordCounter):
    """A tokenizer that draws ids: a start, a few words, and the end token last."""

    def __init__(self, context_length: int, words: int, end: int) -> None:
        self.context_length, self._words, self._end = context_length, words, end

    def __call__(self, texts: list[str]) -> Tensor:
        """Return token ids (C, context length)."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            length = min(len(self.encode(text)) + 1, self.context_length - 1)
            row[:length] = torch.randint(3, self._words, (length,), generator=generator)
            row[length] = self._end
        return ids


def main() -> None:
    """Time a step of MSTA and of fine-tuning in turn on each backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="backbones to time: names separated by commas")
    parser.add_argument("--layers", type=int, help="first layers of each tower that are kept; 0: all")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(2)
    print(f"{args.batch} clips of {args.frames} frames, {args.classes} classes, CPU, fp32; target {TARGET} or less")
    print(f"{'':18} {'layers':>7} {'msta':>7} {'finetune':>9}  {'ratio (range)':20} {'fastest':>7}  {'load':>4}")
    for name in args.only.split(",") if args.only else BACKBONES:
        layers = BACKBONES.get(name, 0) if args.layers is None else args.layers
        own, baseline = (
            step_of(*what, backbone_of(name, layers, args.frames), args.classes)
            for what in (("msta", CONSISTENCY_OFF), (BASELINE, {}))
        )
        spec = own[0].backbone.spec
        frames = torch.randn(args.batch, args.frames, 3, *spec.image_size, generator=torch.Generator().manual_seed(0))
        times: list[tuple[float, float]] = []
        for turn in range(args.turns + 1):
            pair = timed(own, frames), timed(baseline, frames)
            if turn:  # the first turn warms up
                times.append(pair)
        ratios = [a / b for a, b in times]
        seconds, least = zip(*((statistics.median(one), min(one)) for one in zip(*times, strict=True)), strict=True)
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        fastest = least[0] / least[1]
        print(
            f"{name:18} {spec.video_layers:>3}+{spec.text_layers:<3} {seconds[0]:7.2f} {seconds[1]:9.2f}  "
            f"{ratio:20} {fastest:7.2f}  {os.getloadavg()[0]:4.1f}{'' if fastest <= TARGET else '  above the target'}",
            flush=True,
        )
        del own, baseline
        gc.collect()


def step_of(
    name: str, changes: Mapping[str, Any], backbone: Backbone, count: int
) -> tuple[Method, torch.optim.Optimizer]:
    """Build a method for ``count`` classes on a backbone, and its optimizer."""
    cls = methods.get(name)
    classes = [f"class {i}" for i in range(count)]
    method = cls(backbone, cls.Config(**changes), classes)
    method.set_classes(classes)
    return method.train(), torch.optim.AdamW(method.trainable_parameters(), lr=1e-6)


def backbone_of(name: str, layers: int, frames: int) -> Backbone:
    """Build a backbone with random weights, cut to the first ``layers`` of each tower unless 0."""
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    model = build(config)
    if layers:
        cut(model, layers)
    return Backbone(model, tokenizer(config), name=name, frames=frames)


def cut(model: Any, layers: int) -> None:
    """Keep the first layers of each tower."""
    text = getattr(model, "text", model)
    text.transformer.resblocks = text.transformer.resblocks[:layers]
    if hasattr(model.visual, "trunk"):
        model.visual.trunk.blocks = model.visual.trunk.blocks[:layers]
    else:
        model.visual.transformer.resblocks = model.visual.transformer.resblocks[:layers]


def tokenizer(config: dict[str, Any]) -> Tokenizer:
    """Return a model's tokenizer, or one that draws ids in place of Hugging Face's."""
    text = config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return tokenizer_of(config, None)
    return RandomIds(text["context_length"], text["vocab_size"] - 1, text.get("eos_id", text["vocab_size"] - 1))


if __name__ == "__main__":
    main()
