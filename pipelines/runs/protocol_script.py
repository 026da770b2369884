"""The program of all protocol scripts: plan, train a run for each seed, print the table, register a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.config.schema import TrainConfig
from pipelines.planning.training_flags import training_request

if TYPE_CHECKING:
    from pipelines.planning.plan import Plan
    from pipelines.runs.record import RunResult


def run_protocol(description: str | None, protocol: str, argv: Sequence[str] | None) -> int:
    """Run a protocol script with its flags; return the exit status.

    With several seeds everything is checked before the first run starts. The registered model is that of the seed
    that is best on held-out training clips, or of the first seed where nothing was held out: never chosen on test.
    """
    request = training_request(description, protocol, argv)
    config = request.config

    from pipelines.planning.plan import plan_run  # torch: late
    from pipelines.planning.text import describe_plan
    from pipelines.records.summary import table
    from pipelines.runs.run import run_training

    plans = [plan_run(replace(config, seed=seed)) for seed in request.seeds]
    for plan in plans:
        print(describe_plan(plan, ahead=request.dry_run), flush=True)
    if request.dry_run:
        return 0
    several = len(plans) > 1
    if several:
        plans = [_without_registering(plan) for plan in plans]
    results = [run_training(plan, fresh=request.fresh) for plan in plans]
    print(f"\n{table([result.record for result in results])}\n")
    for result in results:
        print(f"run     {result.run_dir}\nreport  {result.run_dir}/report/report.html")
    if several and config.tracking.register:
        _register_best(results, config)
    return 0


def _without_registering(plan: Plan) -> Plan:
    tracking = replace(plan.config.tracking, register=None)
    return replace(plan, config=replace(plan.config, tracking=tracking))


def _register_best(results: Sequence[RunResult], config: TrainConfig) -> None:
    """Register the run that is best on held-out clips, or the first."""
    from pipelines.runs.registry import register_run

    best = max(results, key=lambda result: result.metrics.select.top1)
    print(f"registering seed {best.record.seed}")
    register_run(best, config)
