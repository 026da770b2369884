"""The command ``python -m vlmodels``: lists methods and backbones, and prints sizes and costs."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from vlmodels import methods
from vlmodels.describe import describe
from vlmodels.errors import UserError

DESCRIPTION = (
    "What a method costs on a backbone: parameters and multiply-accumulates, counted on shapes without weights."
)


def main(arguments: list[str] | None = None) -> None:
    """Run ``python -m vlmodels`` with these arguments, or with those of the command line if None."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.figures or asked.matrix:
        from vlmodels import matrix  # late: only these two need it

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vlmodels", description=DESCRIPTION)
    parser.add_argument("--list", action="store_true", help="methods with their presets, backbones with their weights")
    parser.add_argument("--figures", action="store_true", help="all published sizes and costs next to ours (Markdown)")
    parser.add_argument("--matrix", action="store_true", help="method x protocol x backbone (Markdown)")
    parser.add_argument("--method", help=f"one of {', '.join(methods.names())}")
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu", help="an open_clip model name, ViCLIP-B-16, or toy")
    parser.add_argument("--preset", help="a published setting of the method, such as b2n")
    parser.add_argument("--frames", type=int, default=8, help="frames of a view")
    parser.add_argument("--labels", type=Path, help="label CSV (id,name) of the training's classes; else 400 classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def catalogue() -> dict[str, Any]:
    """Return every method with its paper and presets, and every backbone with its published weights."""
    from vlmodels import clip  # late: it imports torch and open_clip, and --help answers at once

    found = {name: methods.get(name) for name in methods.names()}
    return {
        "methods": {name: {"paper": cls.paper, "presets": list(cls.presets)} for name, cls in found.items()},
        "backbones": {name: clip.tags(name) for name in clip.names()},
    }


def read_classes(path: Path) -> list[str]:
    """Read class names from a label CSV with the columns id and name.

    Raises:
        UserError: the file is missing or has other columns, or holds fewer than two names, blank or repeated ones.
    """
    from vlmodels.classifier import check_names  # late: it imports torch

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
    """Return a catalogue or a description as text, one aligned line per entry."""
    return _catalogue_text(result) if "methods" in result else _description_text(result)


def _description_text(description: dict[str, Any]) -> str:
    lines = []
    published = {f"published {key}": value for key, value in description.get("published", {}).items()}
    for key, value in (description | published).items():
        if key != "published":
            shown = f"{value:,}" if isinstance(value, (int, float)) else value
            lines.append(f"{key:22} {shown}")
    return "\n".join(lines)


def _catalogue_text(found: dict[str, Any]) -> str:
    lines = ["methods, their presets and papers"]
    for name, facts in found["methods"].items():
        lines += [f"  {name:14} {', '.join(facts['presets'])}", f"  {'':14} {facts['paper']}"]
    lines += ["", "backbones and their published weights"]
    lines += [f"  {name:26} {', '.join(known) or '-'}" for name, known in found["backbones"].items()]
    return "\n".join(lines)
