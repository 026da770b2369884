"""Start workers for runs: one in this process, or groups of ranks of Ray Train."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.cluster.preflight import check_cluster
from pipelines.cluster.session import connect, release_after
from pipelines.config.plain import digest_of
from pipelines.runs.contexts import LocalContext
from pipelines.runs.group import Group, KeptGroup
from pipelines.runs.worker import work
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from pipelines.runs.attempt import Attempt


def in_process(attempt: Attempt, *, own_process: bool) -> None:
    """Run an attempt's only worker in this process; what ends it is its error.

    Args:
        attempt: at a run of one worker.
        own_process: whether the process does nothing but runs.

    Raises:
        KeyboardInterrupt, SystemExit: the user, or a sweep, stopped it.
    """
    gpu = attempt.plan.config.scale.gpu
    try:
        attempt.begin()
        with LocalContext(attempt.home, attempt.name, gpu=gpu, own_process=own_process) as context:
            end = work(attempt.job(), context, attempt.progress.hear)
        attempt.end(end)
    except UserError as error:
        attempt.fail(attempt.mistake(error) if attempt.progress.mistake else error)
    except BaseException as error:
        attempt.fail(error)
        if not isinstance(error, Exception):
            raise


def check_machines(attempts: Sequence[Attempt]) -> list[str]:
    """Connect to Ray and check that its machines can run the workers; return notes for the reader.

    Raises:
        UserError: a machine that cannot run a worker, or too little in the cluster.
    """
    import pipelines.runs.trainer  # noqa: F401 - while Ray starts

    if _kept is not None and all(_kept.serves(scale_of(attempt)) for attempt in attempts):
        return []
    connect()
    plans = [attempt.plan for attempt in attempts]
    asked = {digest_of([plan.config.scale, plan.config.out, plan.config.backbone, plan.data]): plan for plan in plans}
    found = [check_cluster(plan.config, data=plan.data) for plan in asked.values()]
    return list(dict.fromkeys(note for notes in found for note in notes))


def on_ray(attempts: Sequence[Attempt]) -> None:
    """Run attempts of one scale, one after the other, by one group of workers on Ray; after ``check_machines``.

    Each attempt has its result or its error at the end. An attempt whose workers fail too often ends; the others go on
    with new workers. Those of a sweep's trial stay for the next one that this process is given.

    Raises:
        KeyboardInterrupt, SystemExit: the user stopped them; the one at hand has ended with that.
    """
    watched = [attempt for attempt in attempts if attempt.watched]
    for attempt in watched:
        _on_kept_workers(attempt)
    if others := [attempt for attempt in attempts if not attempt.watched]:
        _on_own_workers(others)


def scale_of(attempt: Attempt) -> str:
    """Return a digest that attempts share if the same workers can run them."""
    return digest_of([attempt.plan.config.scale, attempt.home.uri])


def _on_own_workers(attempts: Sequence[Attempt]) -> None:
    group = Group(f"workers-{attempts[0].name}")
    try:
        with release_after(), group.board:
            group.add(attempts)
            group.board.close()
            while group.left:
                group.run()
    except BaseException as error:
        for attempt in group.left:
            attempt.fail(error)
        raise
    finally:
        with contextlib.suppress(OSError):
            attempts[0].home.give_up(group.folder)


_kept: KeptGroup | None = None


def _on_kept_workers(attempt: Attempt) -> None:
    global _kept  # noqa: PLW0603 - Ray Tune calls trials in a process that it keeps, and hands nothing on
    key = scale_of(attempt)
    if _kept is not None and not _kept.serves(key):
        _kept.end()
        _kept = None
    if _kept is None:
        _kept = KeptGroup(key, f"workers-{attempt.name}")
    _kept.do(attempt)
