"""Try many settings of a method: a paper's ablation, every range of layers, or a search for better ones.

What is best on held-out training clips is trained again on all of them with several seeds, tested once and registered.
The same command goes on with a sweep that was cut off; nothing that ended is run twice.

Example:
  python pipelines/sweep.py --data DIR --backbone ViT-B-16-quickgelu --pretrained openai --descriptions FILE
                            --method msta --space insertion
  python pipelines/sweep.py ... --space search --search tpe --samples 50 --scheduler asha
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pipelines.cli import run_script
from pipelines.sweeps.flags import LIST, list_spaces, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run what has no record yet, choose, train the winner, report."""
    args, protocol = parse(argv, __doc__ or "")
    if args.space == LIST:
        print(list_spaces(args.method))
        return 0

    from pipelines.sweeps.flags import winner_seeds
    from pipelines.sweeps.plan import plan_sweep
    from pipelines.sweeps.text import about, describe_sweep, ending, registered_name

    plan, seeds = plan_sweep(args, protocol), winner_seeds(args)
    print(describe_sweep(plan, every=args.dry_run), flush=True)
    if args.dry_run:
        return 0

    from pipelines.cluster.session import connect
    from pipelines.sweeps.folder import SweepFolder, runs_at
    from pipelines.sweeps.report.columns import sweep_table
    from pipelines.sweeps.report.page import write_sweep_report
    from pipelines.sweeps.runner import run_trials
    from pipelines.sweeps.tracking import abandon, parent_run
    from pipelines.sweeps.winner import choose, crown

    folder = SweepFolder.at(plan.base.out, plan.name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.locked())
        if args.fresh:
            abandon(plan, folder.sweep())
            folder.discard(runs_at(plan.base.out, plan.name))
        if address := connect(dashboard=None if args.dashboard == "none" else args.dashboard):
            print(f"dashboard  http://{address}", flush=True)
        told = about(plan, folder.sweep())
        folder.write_sweep(told)  # its key finds the run that a killed session had opened
        parent = stack.enter_context(parent_run(plan, told["tracking"]))
        told["tracking"]["run_id"] = parent.run_id
        folder.write_sweep(told)
        whole = run_trials(plan, folder, parent=parent.run_id, concurrent=args.concurrent)
        succeeded = parent.ended(folder.trials(), whole=whole)
        write_sweep_report(folder.path)  # what follows may take long, or fail
        winner = choose(plan, folder.trials()) if whole else None
        if winner is None or list(winner.trials) != (folder.winner() or {}).get("trials"):
            folder.forget_winner()
        if winner is not None and seeds:
            print(f"\nbest on held-out clips: {winner.label} ({winner.objective} {winner.value:.1f})", flush=True)
            name = registered_name(args, plan)
            parent.crowned(crown(plan, winner, folder, seeds=seeds, register=name, parent=parent, fresh=args.fresh))
        report = write_sweep_report(folder.path)
        parent.attach(report.parent)
    print(f"\n{sweep_table(told, folder.trials())}\n")
    print(ending(plan, folder, report, wanted=bool(seeds)))
    return 0 if succeeded else 1


if __name__ == "__main__":
    run_script(main)
