"""What the scripts of all protocols do: plan, train a run for each seed, print the table, register a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.config.schema import TrainConfig
from pipelines.planning.flags import config_from, training_parser


def run_protocol(description: str | None, protocol: str, argv: Sequence[str] | None) -> int:
    """Data and protocol make a plan; the plan makes a run; the runs make a table and a model.

    With several seeds everything is checked before the first run starts. The registered model is that of the seed
    that is best on held-out training clips, or of the first seed where nothing was held out: never chosen on test.
    """
    parser = training_parser(description or "", protocol)
    args = parser.parse_args(argv)
    config = config_from(args, protocol=protocol)

    from pipelines.planning.plan import plan_run
    from pipelines.planning.text import describe_plan
    from pipelines.records.summary import table
    from pipelines.runs.registry import register_run
    from pipelines.runs.run import run_training

    plans = [plan_run(replace(config, seed=seed)) for seed in args.seeds or (config.seed,)]
    for plan in plans:
        print(describe_plan(plan, ahead=args.dry_run), flush=True)
    if args.dry_run:
        return 0
    several = len(plans) > 1
    results = []
    for plan in plans:
        wanted = plan.config if not several else _without_registering(plan.config)
        results.append(run_training(wanted, plan=replace(plan, config=wanted), fresh=args.fresh))
    records = [result.record for result in results]
    print(f"\n{table(records)}\n")
    for result in results:
        print(f"run     {result.run_dir}\nreport  {result.run_dir}/report/report.html")
    if several and config.tracking.register:
        best = max(results, key=lambda result: result.metrics.get("select", {}).get("top1", 0.0))
        print(f"registering seed {best.record['seed']}")
        register_run(best, config)
    return 0


def _without_registering(config: TrainConfig) -> TrainConfig:
    return replace(config, tracking=replace(config.tracking, register=None))
