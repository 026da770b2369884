"""What a method costs on a backbone: parameters and multiply-accumulates, counted on shapes without weights."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmodels import methods, published
from vlmodels.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


PLACEHOLDERS = 400  # classes of Kinetics-400, whose classifiers the papers count


def describe(
    method: str, backbone: str, *, preset: str | None = None, frames: int = 8, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Count parameters and multiply-accumulates (1 MAC = 2 FLOPs; matrix products and convolutions only).

    Args:
        method: a method's name.
        backbone: a backbone's name.
        preset: one of the method's presets; its default configuration if None.
        frames: frames of the one view that ``gmacs_video`` is for.
        classes: names of the training's classes, for methods with a classifier of fixed classes; by default 400
            placeholders.

    Returns:
        ``trainable`` and ``total`` parameters, ``adapter_bytes`` (fp32 tensors), ``gmacs_video`` (the tower and what
        acts in it; not OmniCLIP's class prompts per video, 2.5 more for 400 classes), ``gmacs_text_per_class`` at
        the full context length, as published costs are (training cuts prompts after the longest, and runs frozen
        layers below the first adapter once), ``gmacs_text`` for all classes, and
        ``published``: what the paper prints, where it does.

    Raises:
        UserError: unknown method, backbone or preset, or a configuration that does not fit the backbone.
    """
    cls = methods.get(method)
    import torch

    from vlmodels.clip import create

    if preset is not None and preset not in cls.presets:
        raise UserError(
            f"{method} has no preset '{preset}'{nearest(preset, cls.presets)}; it has {', '.join(cls.presets)}"
        )
    if frames < 1:
        raise UserError(f"frames={frames} must be at least 1")
    config = cls.Config() if preset is None else cls.presets[preset].method
    names = list(classes) or [f"class {number}" for number in range(PLACEHOLDERS)]
    with torch.device("meta"):
        built = cls(create(backbone, weights=None, num_frames=frames), config, names).eval()
        spec = built.backbone.spec
        clip = torch.empty(1, frames, 3, *spec.image_size)
        tokens = torch.empty(1, spec.context_length, dtype=torch.long)
    counts = [gmacs(built.encode_video, clip), gmacs(built.backbone.encode_text, tokens)]
    result: dict[str, Any] = {
        "method": method,
        "preset": preset,
        "backbone": backbone,
        "frames": frames,
        "classes": len(names),
        "trainable": sum(p.numel() for p in built.trainable_parameters()),
        "total": sum(p.numel() for p in built.parameters()),
        "adapter_bytes": sum(t.numel() * t.element_size() for t in built.adapter_state_dict().values()),
        "gmacs_video": round(counts[0], 3),
        "gmacs_text_per_class": round(counts[1], 4),
        "gmacs_text": round(len(names) * counts[1], 3),
    }
    found = published.figure(method, preset, backbone, frames)
    if found is not None and found.source:
        printed = {"trainable": found.printed_trainable, "gmacs_video": found.printed_gmacs}
        printed |= {"source": found.source, "remark": found.remark}
        result["published"] = {key: value for key, value in printed.items() if value}
    return result


def gmacs(encode: Callable[..., object], given: Tensor) -> float:
    """Multiply-accumulates (1e9) of ``encode(given)``: matrix products and convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encode(given)
    return float(counter.get_total_flops() / 2e9)


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
    parser.add_argument("--figures", action="store_true", help="all published sizes and costs beside ours (Markdown)")
    parser.add_argument("--matrix", action="store_true", help="method x protocol x backbone (Markdown)")
    parser.add_argument("--method", help=f"one of {', '.join(methods.names())}")
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu", help="an open_clip model name, ViCLIP-B-16, or toy")
    parser.add_argument("--preset", help="a published setting of the method, such as b2n")
    parser.add_argument("--frames", type=int, default=8, help="frames of a view")
    parser.add_argument("--labels", type=Path, help="label CSV (id,name) of the training's classes; else 400 classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    if asked.figures or asked.matrix:
        from vlmodels import matrix

        print(matrix.figures_table() if asked.figures else matrix.matrix())
        return
    if asked.list:
        result = catalogue()
    elif asked.method is None:
        parser.error("give --method NAME, --list, --figures or --matrix")
    else:
        classes = read_classes(asked.labels) if asked.labels else ()
        result = describe(asked.method, asked.backbone, preset=asked.preset, frames=asked.frames, classes=classes)
    print(json.dumps(result, indent=2) if asked.json else as_text(result))


def read_classes(path: Path) -> list[str]:
    """Class names from a label CSV with the columns id and name.

    Raises:
        UserError: no such file, other columns, fewer than two names, blank or repeated ones.
    """
    from vlmodels.classifier import check_names

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = [row["name"].strip() for row in csv.DictReader(file)]
    except (OSError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a label CSV with the columns id,name ({error!r})") from error
    try:
        check_names(names)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return names


def as_text(result: dict[str, Any]) -> str:
    """One aligned line per entry."""
    if "methods" not in result:
        flat = {k: v for k, v in result.items() if k != "published"}
        flat |= {f"published {k}": v for k, v in result.get("published", {}).items()}
        return "\n".join(f"{key:22} {f'{v:,}' if isinstance(v, (int, float)) else v}" for key, v in flat.items())
    lines = ["methods, their presets and papers"]
    for name, facts in result["methods"].items():
        lines += [f"  {name:14} {', '.join(facts['presets'])}", f"  {'':14} {facts['paper']}"]
    lines += ["", "backbones and their published weights"]
    lines += [f"  {name:26} {', '.join(known) or '-'}" for name, known in result["backbones"].items()]
    return "\n".join(lines)
