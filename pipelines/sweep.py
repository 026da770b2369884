"""Try many settings of a method: a paper's ablation, every range of layers, or a search for better ones.

What is best on held-out training clips is trained again on all of them with several seeds, tested once and registered.
The same command continues a sweep that was cut off; nothing that ended is run twice.

Example:
  python pipelines/sweep.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --descriptions FILE
                            --method msta --space insertion
  python pipelines/sweep.py ... --space search --search tpe --samples 50 --scheduler asha
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.run_script import run_script
from pipelines.sweeps.flags import LIST, list_spaces, parse, request_from


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run what has not ended yet, choose, train the winner, report."""
    args, protocol = parse(argv, __doc__ or "")
    if args.space == LIST:
        print(list_spaces(args.method))
        return 0

    from pipelines.sweeps.plan import plan_sweep  # PyTorch, Ray, MLflow: late
    from pipelines.sweeps.text import closing_text, describe_sweep

    request = request_from(args, protocol)
    plan = plan_sweep(request)
    print(describe_sweep(plan, every=request.dry_run), flush=True)
    if request.dry_run:
        return 0

    from pipelines.sweeps.report.columns import sweep_table
    from pipelines.sweeps.session import run_sweep

    outcome = run_sweep(plan, request)
    print(f"\n{sweep_table(outcome.record, outcome.folder.trials())}\n")
    print(closing_text(plan, outcome.folder, outcome.page, winner_wanted=bool(request.winner_seeds)))
    return 0 if outcome.succeeded else 1


if __name__ == "__main__":
    run_script(main)
