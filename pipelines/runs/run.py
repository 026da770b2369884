"""Run plans: from a ``Plan`` to a finished, tracked and registered run, one or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.cluster.session import fits_here
from pipelines.config.plain import digest_of
from pipelines.planning.plan import Plan
from pipelines.records.home import Home
from pipelines.runs import launch
from pipelines.runs.attempt import Attempt, Watch
from pipelines.runs.pages import draw_pages
from pipelines.runs.progress import Send
from pipelines.runs.record import RunResult
from pipelines.runs.registry import register_run

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
    results: dict[str, RunResult | Exception] = {}
    attempts: dict[str, Attempt] = {}
    for plan in plans:
        home = Home.at(plan.config.out)
        if fresh and plan.name not in attempts:
            home.discard(plan.name)
        if (record := home.finished(plan.name)) is not None:
            say(f"{plan.name}: unchanged, finished before; reusing {home.path(plan.name)}")
            results[plan.name] = RunResult(home.path(plan.name), record, reused=True)
        else:
            attempts[plan.name] = Attempt(plan, home, say=say, watch=watch, on_message=on_message)
    here = watch is not None
    for attempt in _run(list(attempts.values()), say, watched=here):
        if isinstance(attempt.error, Exception):
            results[attempt.name] = attempt.error
        elif attempt.result is not None:
            results[attempt.name] = attempt.result
    ends = [results[plan.name] for plan in plans]
    show(ends)
    for plan, end in zip(plans, ends, strict=True):
        if isinstance(end, RunResult):
            home = Home.at(plan.config.out)
            if watch is None:
                draw_pages(end, plan.config.tracking, home, say=say)
            if plan.config.tracking.register:
                register_run(end, plan.config, home=home, say=say)
    return ends


def _run(attempts: Sequence[Attempt], say: Callable[[str], None], *, watched: bool) -> Sequence[Attempt]:
    """Bring all attempts to their end: in this process, or by a group of workers for each scale."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.home.unfinished(attempt.name):
            attempt.note("found an unfinished run with the same settings; continuing it (--fresh starts over)")
        scale = attempt.plan.config.scale
        local = fits_here(scale) or (watched and scale.workers == 1)
        groups.setdefault("" if local else digest_of([scale, attempt.home.uri]), []).append(attempt)
    here = groups.pop("", [])
    for group in groups.values():  # before MLflow has a run that could not start
        for note in launch.check_machines([attempt.plan for attempt in group]):
            say(note)
    for attempt in here:
        try:
            launch.in_process(attempt, own_process=not watched)
        except Exception:
            if watched:
                raise
    for group in groups.values():
        launch.on_ray(group)
    return attempts
