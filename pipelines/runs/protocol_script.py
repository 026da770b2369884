"""The program of all protocol scripts: plan, train each method with each seed, print the table, register a model."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.cluster.session import connect_ahead, disconnect, fits_here
from pipelines.planning.training_flags import TrainingRequest, training_request
from pipelines.training.errors import DivergedError
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.planning.plan import Plan
    from pipelines.runs.record import RunResult


def run_protocol(description: str | None, protocol: str, argv: Sequence[str] | None) -> int:
    """Run a protocol script with its flags; return the exit status.

    With several methods or seeds everything is checked before the first run starts; one that fails later leaves the
    others as they are, and the status is 1. The registered model is that of the run that is best on held-out training
    clips, or of the first seed where nothing was held out: never chosen on test.

    Raises:
        UserError: a mistake that can be seen before the first run starts, or the one run's.
    """
    request = training_request(description, protocol, argv)
    if not request.dry_run and not all(fits_here(config.scale) for config in request.configs):
        connect_ahead()

    from pipelines.planning.plan import plan_run  # torch: late
    from pipelines.planning.text import describe_plan
    from pipelines.runs.run import run_plans

    plans = [plan_run(replace(config, seed=seed)) for config in request.configs for seed in request.seeds]
    _check_choice(request, plans)
    for plan in plans:
        print(describe_plan(plan, ahead=request.dry_run), flush=True)
    if request.dry_run:
        return 0
    several = len(plans) > 1
    registered_here = [_without_registering(plan) for plan in plans] if several else plans
    ends = run_plans(registered_here, fresh=request.fresh, show=lambda ends: _show(plans, ends))
    if not several and isinstance(ends[0], Exception):
        raise ends[0]
    results = [end for end in ends if not isinstance(end, Exception)]
    if several and results and request.configs[0].tracking.register:
        _register_best(results, request)
    return 0 if len(results) == len(plans) else 1


def _show(plans: Sequence[Plan], ends: Sequence[RunResult | Exception]) -> None:
    """Print the table, where to look, and what failed; no run needs Ray any more, so let it end."""
    from pipelines.records.summary import table

    if results := [end for end in ends if not isinstance(end, Exception)]:
        print(f"\n{table([result.record for result in results])}\n")
    for result in results:
        print(f"run     {result.run_dir}\nreport  {result.run_dir}/report/report.html", flush=True)
    for plan, end in zip(plans, ends, strict=True):
        if isinstance(end, Exception) and len(plans) > 1:
            if not isinstance(end, UserError | DivergedError):
                traceback.print_exception(end)
            print(f"error: {plan.config.method}, seed {plan.config.seed}: {end}", file=sys.stderr)
    threading.Thread(target=disconnect, name="disconnect").start()  # Ray ends while pages are drawn


def _check_choice(request: TrainingRequest, plans: Sequence[Plan]) -> None:
    """Refuse to register the best of several methods where nothing tells which that is."""
    first = request.configs[0]
    if first.tracking.register and len(request.configs) > 1 and not all(plan.split.select for plan in plans):
        raise UserError(
            f"--register {first.tracking.register}: nothing is held out by which the best of "
            f"{len(request.configs)} methods could be chosen; add --set protocol.holdout=0.2, or give one --method"
        )


def _without_registering(plan: Plan) -> Plan:
    tracking = replace(plan.config.tracking, register=None)
    return replace(plan, config=replace(plan.config, tracking=tracking))


def _register_best(results: Sequence[RunResult], request: TrainingRequest) -> None:
    """Register the run that is best on held-out clips, or the first."""
    from pipelines.runs.registry import register_run

    best = max(results, key=lambda result: result.metrics.select.top1)
    method = f"{best.record.method}, " if len(request.configs) > 1 else ""
    print(f"registering {method}seed {best.record.seed}")
    register_run(best, request.configs[0])
