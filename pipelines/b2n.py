"""Base-to-novel generalisation: tune on few shots of the base classes, score base and novel classes.

Example:
  python pipelines/b2n.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --method msta
                          --descriptions FILE --lists DIR --workers 2 --register msta-b2n
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.arguments import config_from, training_parser
from pipelines.cli import run_script


def main(argv: Sequence[str] | None = None) -> int:
    """Data and protocol make a plan; the plan makes a run; the run makes a table and a model."""
    args = training_parser(__doc__, "b2n.py").parse_args(argv)
    config = config_from(args, protocol="b2n")

    from pipelines.plan import describe_plan, plan_run
    from pipelines.report import table
    from pipelines.train import run_training

    plan = plan_run(config)
    print(describe_plan(plan), flush=True)
    if args.dry_run:
        return 0
    result = run_training(config, plan=plan, fresh=args.fresh)
    print(f"\n{table([result.record])}\n\nrun     {result.run_dir}\nreport  {result.run_dir}/report/report.html")
    return 0


if __name__ == "__main__":
    run_script(main)
