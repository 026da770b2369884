"""What a method costs on a backbone: parameters and multiply-accumulates, counted on shapes without weights."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vlmodels import methods
from vlmodels.errors import UserError, nearest


def describe(
    method: str, backbone: str, *, preset: str | None = None, frames: int = 8, classes: int | None = None
) -> dict[str, Any]:
    """Count parameters and multiply-accumulates (1 MAC = 2 FLOPs; matrix products and convolutions only).

    Args:
        method: a method's name.
        backbone: a backbone's name.
        preset: one of the method's presets; its default configuration if None.
        frames: frames of the one view that ``gmacs_video`` is for.
        classes: adds ``gmacs_text``, for so many classes.

    Returns:
        ``trainable`` and ``total`` parameters, ``adapter_bytes`` (fp32 tensors), ``gmacs_video``, and
        ``gmacs_text_per_class`` at the full context length, as published costs are (training cuts prompts
        after the longest, and runs frozen layers below the first adapter once).

    Raises:
        UserError: unknown method, backbone or preset, or a configuration that does not fit the backbone.
    """
    cls = methods.get(method)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vlmodels.clip import create

    if preset is not None and preset not in cls.presets:
        raise UserError(
            f"{method} has no preset '{preset}'{nearest(preset, cls.presets)}; it has {', '.join(cls.presets)}"
        )
    config = cls.Config() if preset is None else cls.presets[preset].method
    with torch.device("meta"):
        built = cls(create(backbone, weights=None, num_frames=frames), config).eval()
        spec = built.backbone.spec
        clip = torch.empty(1, frames, 3, *spec.image_size)
        tokens = torch.empty(1, spec.context_length, dtype=torch.long)
    counts: list[float] = []
    for encode, given in ((built.encode_video, clip), (built.backbone.encode_text, tokens)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encode(given)
        counts.append(counter.get_total_flops() / 2e9)
    trainable = built.trainable_parameters()
    result = {
        "method": method,
        "preset": preset,
        "backbone": backbone,
        "frames": frames,
        "trainable": sum(p.numel() for p in trainable),
        "total": sum(p.numel() for p in built.parameters()),
        "adapter_bytes": sum(t.numel() * t.element_size() for t in built.adapter_state_dict().values()),
        "gmacs_video": round(counts[0], 3),
        "gmacs_text_per_class": round(counts[1], 4),
    }
    return result if classes is None else result | {"gmacs_text": round(classes * counts[1], 3)}


def catalogue() -> dict[str, Any]:
    """Every method with its paper and presets, and every backbone with its published weights."""
    from vlmodels import clip

    found = {name: methods.get(name) for name in methods.names()}
    return {
        "methods": {name: {"paper": cls.paper, "presets": list(cls.presets)} for name, cls in found.items()},
        "backbones": {name: clip.tags(name) for name in clip.names()},
    }


def main(arguments: list[str] | None = None) -> None:
    """``python -m vlmodels``."""
    parser = argparse.ArgumentParser(prog="python -m vlmodels", description=__doc__)
    parser.add_argument("--list", action="store_true", help="methods with their presets, backbones with their weights")
    parser.add_argument("--method", help=f"one of {', '.join(methods.names())}")
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu", help="an open_clip model name, or toy")
    parser.add_argument("--preset", help="a published setting of the method, such as b2n")
    parser.add_argument("--frames", type=int, default=8, help="frames of a view")
    parser.add_argument("--classes", type=int, help="also count the text side of so many classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    if asked.list:
        result = catalogue()
    elif asked.method is None:
        parser.error("give --method NAME or --list")
    else:
        result = describe(asked.method, asked.backbone, preset=asked.preset, frames=asked.frames, classes=asked.classes)
    print(json.dumps(result, indent=2) if asked.json else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    """One aligned line per entry."""
    if "methods" not in result:
        return "\n".join(f"{key:22} {f'{v:,}' if isinstance(v, (int, float)) else v}" for key, v in result.items())
    lines = ["methods, their presets and papers"]
    for name, facts in result["methods"].items():
        lines += [f"  {name:14} {', '.join(facts['presets'])}", f"  {'':14} {facts['paper']}"]
    lines += ["", "backbones and their published weights"]
    lines += [f"  {name:26} {', '.join(known) or '-'}" for name, known in result["backbones"].items()]
    return "\n".join(lines)
