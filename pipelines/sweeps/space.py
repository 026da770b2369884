"""From a sweep's request to its search space, and to the way through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from pipelines.config.schema import OptimConfig, TrainConfig
from pipelines.sweeps.request import APART, LAYERS, SEARCH, SweepRequest
from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from tune_spaces.domains import Domain, Space
    from tune_spaces.search import Search


_COMMON = ("backbone", "data", "out", "protocol", "scale", "seed", "start", "test", "tracking")  # seeds have a flag
_TUNED = ("lr", "weight_decay")  # of the optimizer: what a search varies as well as the method's own settings


def space_for(request: SweepRequest) -> Space:
    """Return what is varied, apart from an ablation's rows.

    Raises:
        UserError: nothing is, or a key is given twice or must be the same for all trials.
    """
    from tune_spaces.domains import parse_grid

    # What the user sets is not searched.
    space = {key: domain for key, domain in _named_space(request).items() if key not in request.fixed}
    given = dict(map(parse_grid, request.grid))
    rows = {key for row in request.ablation.rows for key in row.setting} if request.ablation else set()
    space |= given
    _check_keys(request.fixed, set(given), rows, {*space, *rows})
    if not space and request.ablation is None:
        raise UserError("nothing to try: name a --space (see --space list) or give values with --grid KEY=A,B,C")
    return space


def _named_space(request: SweepRequest) -> dict[str, Domain]:
    from tune_spaces.spaces import config_space, insertion_space
    from vlmodels import methods

    config, depths = methods.get(request.base.method).Config, request.depths
    if request.space in (LAYERS, APART):
        return dict(insertion_space(config, depths=depths, apart=request.space == APART))
    if request.space == SEARCH:
        known = {field.name for field in fields(OptimConfig)}
        names = [name for name in _TUNED if name in known]
        optim = config_space(OptimConfig, depths=depths, prefix="optim.", names=names)
        return {**config_space(config, depths=depths), **optim}
    return {}


def _check_keys(fixed: frozenset[str], given: set[str], rows: set[str], tried: set[str]) -> None:
    """Raise UserError for keys that are given twice, and for those that all trials must have in common."""
    common = {key for key in tried if key.partition(".")[0] in _COMMON}
    refuse(
        [f"{key} is the same for all trials, which are compared on the same clips: no values to try" for key in common]
        + [f"{key}: given by --grid and by the ablation's rows; leave out one of the two" for key in given & rows]
        + [
            f"{key}: given by --set and tried by the sweep too; leave out one of the two"
            for key in sorted(fixed & tried - common)
        ]
    )


def search_for(request: SweepRequest) -> Search:
    """Return how the space is searched, and for what.

    Raises:
        UserError: an ablation is to be searched, or an objective may not choose.
    """
    from tune_spaces.search import Objective, Search

    base, listed = request.base, request.ablation is not None
    if listed and (request.search or "grid") != "grid":
        raise UserError("a published ablation is its rows: --search is grid; to search freely take --space search")
    default = "select.hm" if base.protocol.holdout_classes else "select.top1"
    objectives = tuple(map(Objective.parse, request.objectives or [default]))
    _check_objectives([objective.metric for objective in objectives], base)
    return Search(
        kind=request.search or ("random" if request.samples and not listed else "grid"),
        samples=request.samples,
        scheduler=request.scheduler,
        objectives=objectives,
        seed=request.search_seed,
        epochs=base.optim.epochs,
        grace=request.grace,
    )


def _check_objectives(metrics: Sequence[str], base: TrainConfig) -> None:
    """Raise UserError for what a sweep must not choose by, or does not measure."""
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
