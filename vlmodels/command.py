"""The command ``python -m vlmodels``: lists methods and backbones, and prints sizes and costs."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import textwrap
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
    if table := _table(asked):
        print(table)
        return
    if asked.list:
        result = catalogue()
    elif asked.method is None:
        parser.error("give --method NAME, --list, --figures, --matrix, --backbones or --families")
    else:
        classes = read_classes(asked.labels) if asked.labels else ()
        result = describe(asked.method, asked.backbone, preset=asked.preset, frames=asked.frames, classes=classes)
    print(json.dumps(result, indent=2) if asked.json else as_text(result))


def _table(asked: argparse.Namespace) -> str:
    """Return the Markdown table that is asked for; "" if none is."""
    if asked.figures or asked.matrix:
        from vlmodels import matrix  # late, as the next: only the tables need it

        return matrix.figures_table() if asked.figures else matrix.matrix()
    if asked.backbones or asked.families:
        from vlmodels import backbone_tables

        return backbone_tables.sizes_table(asked.backbones) if asked.backbones else backbone_tables.families_table()
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vlmodels", description=DESCRIPTION)
    parser.add_argument(
        "--list", action="store_true", help="methods with their presets, backbones with their weights, refused models"
    )
    parser.add_argument("--figures", action="store_true", help="all published sizes and costs next to ours (Markdown)")
    parser.add_argument("--matrix", action="store_true", help="method x protocol x backbone (Markdown)")
    parser.add_argument(
        "--backbones",
        nargs="?",
        const="main",
        choices=("main", "all"),
        help="sizes, costs and published scores of the main backbones, or of all (Markdown)",
    )
    parser.add_argument("--families", action="store_true", help="method x family of backbones (Markdown)")
    parser.add_argument("--method", help=f"one of {', '.join(methods.names())}")
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu", help="an open_clip model name, ViCLIP-B-16, or toy")
    parser.add_argument("--preset", help="a published setting of the method, such as b2n")
    parser.add_argument("--frames", type=int, default=8, help="frames of a view")
    parser.add_argument("--labels", type=Path, help="label CSV (id,name) of the training's classes; else 400 classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def catalogue() -> dict[str, Any]:
    """Return methods with paper and presets, backbones with their facts, and refused models with the reason."""
    from vlmodels.catalogue import entries, refused  # late: they import torch and open_clip, and --help answers at once

    found = {name: methods.get(name) for name in methods.names()}
    return {
        "methods": {name: {"paper": cls.paper, "presets": list(cls.presets)} for name, cls in found.items()},
        "backbones": {name: dataclasses.asdict(facts) for name, facts in entries().items()},
        "refused": refused(),
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
    for family in dict.fromkeys(facts["family"] for facts in found["backbones"].values()):
        own = {name: facts for name, facts in found["backbones"].items() if facts["family"] == family}
        lines += ["", f"{family} ({len(own)}): frame size, context, published weights"]
        for name, facts in own.items():
            weights = textwrap.wrap(", ".join(facts["weights"]) or "-", 78)
            lines.append(f"  {name:29} {facts['frame_size']} {facts['context']:3}  {weights[0]}")
            lines += [f"  {'':38}{more}" for more in weights[1:]]
    for reason in dict.fromkeys(found["refused"].values()):
        names = [name for name, why in found["refused"].items() if why == reason]
        lines += ["", f"refused ({len(names)}): {reason}"]
        lines += textwrap.wrap(", ".join(names), 110, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)
