"""One session of a sweep: run what has not ended yet, choose, train the winner, report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster.session import connect
from pipelines.storage.place import Place
from pipelines.sweeps.folder import SweepFolder, runs_at
from pipelines.sweeps.plan import SweepPlan
from pipelines.sweeps.records import SweepRecord
from pipelines.sweeps.report.page import write_sweep_report
from pipelines.sweeps.request import SweepRequest
from pipelines.sweeps.runner import run_trials
from pipelines.sweeps.text import registered_name
from pipelines.sweeps.tracking import SweepRun, end_unfinished, open_sweep_run
from pipelines.sweeps.winner import choose_winner, train_winner
from vlmodels.errors import UserError


@dataclass(frozen=True)
class SweepOutcome:
    """What a session leaves: the records in ``folder`` and the report's ``page``.

    Attributes:
        succeeded: whether all trials ended, one of them at least with scores.
    """

    record: SweepRecord
    folder: SweepFolder
    page: Path
    succeeded: bool


def _say(text: str) -> None:
    print(text, flush=True)


def run_sweep(
    plan: SweepPlan,
    request: SweepRequest,
    *,
    folder: SweepFolder | None = None,
    run_trials: Callable[..., bool] = run_trials,
    say: Callable[[str], None] = _say,
) -> SweepOutcome:
    """Run a session of a sweep; the same one later continues where this one stopped.

    Args:
        plan: the sweep.
        request: what it was planned from.
        folder: the sweep's folder; by default that of its name below ``out``.
        run_trials: runs the trials that have not ended; takes what ``runner.run_trials`` takes.
        say: gets lines for the user.

    Raises:
        UserError: the sweep is running already, its store or cluster cannot be used, or the winner cannot be trained.
    """
    folder = folder or SweepFolder.at(plan.base.out, plan.name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.locked())
        if request.fresh:
            begin_anew(plan, folder)
        if address := connect(dashboard=request.dashboard):
            say(f"dashboard  http://{address}")
        record = SweepRecord.of(plan, folder.sweep())
        folder.write_sweep(record)  # its key finds the run that a killed session had opened
        sweep_run = stack.enter_context(open_sweep_run(plan, record.tracking))
        record = record.tracked_as(sweep_run.run_id)
        folder.write_sweep(record)
        complete = run_trials(plan, folder, sweep_run_id=sweep_run.run_id, concurrent=request.concurrent, say=say)
        succeeded = sweep_run.record_trials(folder.trials(), complete=complete)
        write_sweep_report(folder.path)  # what follows may take long, or fail
        _settle_winner(plan, request, folder, sweep_run, complete=complete, say=say)
        page = write_sweep_report(folder.path)
        sweep_run.attach(page.parent)
    return SweepOutcome(record, folder, page, succeeded)


def begin_anew(plan: SweepPlan, folder: SweepFolder) -> None:
    """End what an earlier session of the sweep left open, and delete all that is left of it.

    Raises:
        UserError: the tracking store or the trials' runs cannot be written.
    """
    try:
        earlier = folder.sweep()
    except UserError:  # no record: it names no run to end, and is deleted with the rest
        earlier = None
    end_unfinished(plan, None if earlier is None else earlier.tracking)
    folder.discard(Place.open(runs_at(plan.base.out, plan.name)))


def _settle_winner(
    plan: SweepPlan,
    request: SweepRequest,
    folder: SweepFolder,
    sweep_run: SweepRun,
    *,
    complete: bool,
    say: Callable[[str], None],
) -> None:
    """Choose the winner once all trials have ended, and train it; forget one that is best no more."""
    winner, known = choose_winner(plan, folder.trials()) if complete else None, folder.winner()
    if known is not None and (winner is None or known.trials != winner.trials):
        folder.forget_winner()
    if winner is None or not request.winner_seeds:
        return
    say(f"\nbest on held-out clips: {winner.label} ({winner.objective} {winner.value:.1f})")
    trained = train_winner(
        plan,
        winner,
        folder,
        seeds=request.winner_seeds,
        register=registered_name(plan, request.register),
        sweep_run=sweep_run,
        fresh=request.fresh,
        say=say,
    )
    sweep_run.record_winner(trained)
