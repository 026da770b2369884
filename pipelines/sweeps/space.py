"""From the flags of a sweep to its search space."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pipelines.config.schema import OptimConfig, TrainConfig
from pipelines.sweeps.flags import APART, LAYERS, SEARCH
from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from tune_spaces.ablation_file import Ablation
    from tune_spaces.domains import Space
    from tune_spaces.search import Search
    from tune_spaces.spaces import Depths


_COMMON = ("backbone", "data", "out", "protocol", "scale", "seed", "start", "test", "tracking")  # seeds have a flag
_TUNED = ("optim.lr", "optim.weight_decay")  # what a search varies beside the method's own settings


def depths_of(backbone: str) -> Depths:
    """Layers of both towers."""
    import torch

    from vlmodels.clip import create

    with torch.device("meta"):
        spec = create(backbone, weights=None, num_frames=8).spec
    return {"video": spec.video_layers, "text": spec.text_layers}


def ablation_of(args: argparse.Namespace, depths: Depths) -> Ablation | None:
    """Return the published ablation that ``--space`` names; None if it names none."""
    from tune_spaces.ablation_file import read_ablation
    from tune_spaces.ablations import ablation_names, load_ablation

    if args.space in (None, SEARCH, LAYERS, APART):
        return None
    if ".toml:" in args.space:
        path, _, name = args.space.rpartition(":")
        found = read_ablation(path, name)
        if found.method != args.method:
            raise UserError(f"{args.space} is for {found.method}: pass --method {found.method}")
        return found
    published = ablation_names(args.method)
    if args.space in published:
        return load_ablation(args.method, args.space, depths)
    known = [*published, LAYERS, APART, SEARCH]
    raise UserError(
        f"unknown space '{args.space}'{nearest(args.space, known)}; spaces of {args.method}: {', '.join(known)}, or "
        "FILE.toml:NAME"
    )


def space_for(args: argparse.Namespace, ablation: Ablation | None, depths: Depths) -> Space:
    """What is varied, beside an ablation's rows."""
    from tune_spaces.domains import parse_grid
    from tune_spaces.spaces import config_space, insertion_space
    from vlmodels import methods

    config = methods.get(args.method).Config
    space: dict[str, Any] = {}
    if args.space in (LAYERS, APART):
        space |= insertion_space(config, depths=depths, apart=args.space == APART)
    elif args.space == SEARCH:
        space |= config_space(config, depths=depths)
        names = [key.removeprefix("optim.") for key in _TUNED if key.removeprefix("optim.") in _names(OptimConfig)]
        space |= config_space(OptimConfig, depths=depths, prefix="optim.", names=names)
    fixed = {item.partition("=")[0] for item in args.set}
    space = {key: domain for key, domain in space.items() if key not in fixed}  # what the user sets is not searched
    given = dict(map(parse_grid, args.grid))
    rows = {key for row in ablation.rows for key in row.setting} if ablation else set()
    space |= given
    _check_keys(fixed, set(given), rows, {*space, *rows})
    if not space and ablation is None:
        raise UserError("nothing to try: name a --space (see --space list) or give values with --grid KEY=A,B,C")
    return space


def _check_keys(fixed: set[str], given: set[str], rows: set[str], tried: set[str]) -> None:
    """Raise UserError for keys that are said twice, and for those that all trials must have in common."""
    common = {key for key in tried if key.partition(".")[0] in _COMMON}
    refuse(
        [f"{key} is the same for all trials, which are compared on the same clips: no values to try" for key in common]
        + [f"{key}: given by --grid and by the ablation's rows; leave out one of the two" for key in given & rows]
        + [
            f"{key}: given by --set and tried by the sweep too; leave out one of the two"
            for key in sorted(fixed & tried - common)
        ]
    )


def _names(config: type) -> set[str]:
    return {field.name for field in fields(config)}


def search_of(args: argparse.Namespace, base: TrainConfig, ablation: Ablation | None) -> Search:
    """Return how the space is searched, and for what."""
    from tune_spaces.search import Objective, Search

    if ablation is not None and (args.search or "grid") != "grid":
        raise UserError("a published ablation is its rows: --search is grid; to search freely take --space search")
    default = "select.hm" if base.protocol.holdout_classes else "select.top1"
    objectives = tuple(map(Objective.parse, args.objective or [default]))
    _check_objectives([objective.metric for objective in objectives], base)
    return Search(
        kind=args.search or ("random" if args.samples and ablation is None else "grid"),
        samples=args.samples,
        scheduler=args.scheduler,
        objectives=objectives,
        seed=args.search_seed,
        epochs=base.optim.epochs,
        grace=args.grace,
    )


def _check_objectives(metrics: Sequence[str], base: TrainConfig) -> None:
    """Raise UserError for what a sweep must not choose by, or has no number of."""
    unseen = ("select.novel", "select.hm")
    known = ["select.top1", "select.top5", *(unseen if base.protocol.holdout_classes else ())]
    known += ["cost.trainable", "cost.step_seconds", "cost.gmacs_video"]
    known += ["cost.peak_memory_mb"] if base.scale.gpu else []  # a process that is kept knows no other trial's peak
    for metric in metrics:
        if metric in known:
            continue
        if metric in unseen:
            why = "no classes are held out; set protocol.holdout_classes, for instance 0.2"
        elif metric.startswith(("select.", "cost.")):
            why = "it is not measured"
        else:
            why = "nothing is chosen by scores on the test lists"
        raise UserError(f"--objective {metric}{nearest(metric, known)}: {why}; there are {', '.join(known)}")
    if not base.protocol.holdout and any(metric.startswith("select.") for metric in metrics):
        raise UserError("nothing is held out to choose on: set protocol.holdout above 0, for instance 0.2")
