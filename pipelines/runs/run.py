"""Run plans: from a ``Plan`` to a finished, tracked and registered run, one or many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from pipelines.cluster.session import fits_here
from pipelines.planning.plan import Plan
from pipelines.records.home import Home
from pipelines.runs import launch
from pipelines.runs.attempt import Attempt, Watch
from pipelines.runs.owner import owned
from pipelines.runs.progress import Send
from pipelines.runs.record import RunResult
from vlmodels.errors import UserError

__all__ = ["Watch", "run_plans", "run_training"]


def run_training(
    plan: Plan,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    watch: Watch | None = None,
    on_message: Send | None = None,
) -> RunResult:
    """Train and score a plan; leave ``OUT/NAME/{adapter.safetensors, config.json, run.json, ...}``.

    A finished run is not repeated; one that was cut off continues after its last whole epoch. Both are recognised by
    their name, a digest of all that the result depends on. One worker trains in this very process, unless RAY_ADDRESS
    names a cluster. A watched run draws no report, and is forgotten if its ``watch`` ends it.

    Args:
        plan: of the run.
        fresh: start over, even if the run is finished or can continue.
        say: gets lines for a reader.
        watch: a sweep that follows the run.
        on_message: gets every message of the workers.

    Raises:
        UserError: for every mistake that the user can correct; where possible, before any worker starts.
        DivergedError: the loss is not finite.
        RuntimeError: workers failed more often than ``scale.max_failures`` allows.
    """
    (result,) = run_plans([plan], fresh=fresh, say=say, watch=watch, on_message=on_message)
    if isinstance(result, Exception):
        raise result
    return result


def run_plans(
    plans: Sequence[Plan],
    *,
    fresh: bool = False,
    say: Callable[[str], None] = print,
    watch: Watch | None = None,
    on_message: Send | None = None,
    show: Callable[[Sequence[RunResult | Exception]], None] = lambda _: None,
) -> list[RunResult | Exception]:
    """Train and score plans one after the other, those of one scale by the same workers; else as ``run_training``.

    ``show`` gets what is returned before reports are drawn and models registered.

    Returns:
        For each plan its result, or the error that ended it: the others went on.

    Raises:
        UserError: machines that cannot run the workers.
    """
    attempts: dict[tuple[str, str], Attempt] = {}
    for plan in plans:
        if (plan.config.out, plan.name) in attempts:
            continue
        home = Home.at(plan.config.out)
        attempt = Attempt(plan, home, say=say, watch=watch, on_message=on_message)
        attempts[plan.config.out, plan.name] = attempt
        if not fresh:
            _reuse(attempt)
    _run(list(attempts.values()), fresh=fresh, say=say)
    ended = [attempts[plan.config.out, plan.name] for plan in plans]
    results = [attempt.outcome for attempt in ended]
    show(results)
    for attempt in ended:
        attempt.complete()
    return results


def _run(attempts: Sequence[Attempt], *, fresh: bool, say: Callable[[str], None]) -> None:
    """Bring all attempts to their end: in this process, or by a group of workers for each scale."""
    local: list[Attempt] = []
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        scale = attempt.plan.config.scale
        if attempt.ended:
            if attempt.result is not None:
                attempt.note(f"unchanged, finished before; reusing {attempt.home.path(attempt.name)}")
        elif fits_here(scale) or (attempt.watched and scale.workers == 1):
            local.append(attempt)
        else:
            groups.setdefault(launch.scale_of(attempt), []).append(attempt)
    for group in groups.values():  # before anything is deleted, or MLflow has a run that could not start
        for note in launch.check_machines(group):
            say(note)
    with contextlib.ExitStack() as stack:
        for attempt in [*local, *(attempt for group in groups.values() for attempt in group)]:
            _take(attempt, stack, fresh=fresh)
        for attempt in local:
            if not attempt.ended:
                launch.in_process(attempt, own_process=not attempt.watched)
        for group in groups.values():
            if left := [attempt for attempt in group if not attempt.ended]:
                launch.on_ray(left)


def _reuse(attempt: Attempt) -> None:
    """Take the result of a run that has finished before; a damaged one ends the attempt with its error."""
    try:
        record = attempt.home.finished(attempt.name)
    except UserError as error:
        attempt.fail(error)
        return
    if record is not None:
        attempt.result = RunResult(attempt.home.path(attempt.name), record, reused=True)


def _take(attempt: Attempt, stack: contextlib.ExitStack, *, fresh: bool) -> None:
    """Own a run until ``stack`` ends, and make it ready; it ends here if another process trains it, or has by now."""
    try:
        stack.enter_context(owned(attempt.home, attempt.name, attempt.note))
    except UserError as error:
        attempt.fail(error)
        return
    if fresh:
        attempt.home.discard(attempt.name)
        return
    _reuse(attempt)
    if not attempt.ended and attempt.home.unfinished(attempt.name):
        attempt.note("found an unfinished run with the same settings; continuing it (--fresh starts over)")
