"""A sweep before it starts: its space, its trials where they can be listed, and all that would stop every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.plain import digest_of, to_plain
from pipelines.config.schema import TrainConfig
from pipelines.planning.identity import code_version
from pipelines.planning.plan import Plan, plan_run
from pipelines.storage.cache import local_file
from pipelines.storage.files import file_sha256
from pipelines.sweeps.candidates import Candidate, label_of, overridden, winner_config
from pipelines.sweeps.request import APART, LAYERS, SEARCH, SweepRequest
from pipelines.sweeps.space import search_for, space_for
from vlmodels.errors import UserError, refuse

if TYPE_CHECKING:
    from tune_spaces.ablation_file import Ablation
    from tune_spaces.domains import Setting, Space
    from tune_spaces.search import Search
    from tune_spaces.spaces import Depths

_TITLES = {LAYERS: "Layers", APART: "Layers of each tower", SEARCH: "Search"}


@dataclass(frozen=True)
class SweepPlan:
    """A checked sweep.

    Attributes:
        name: equal for the same question: another number of samples continues the same sweep.
        base: what settings change.
        first: the plan of the first setting that can be built.
        candidates: all trials; None where a searcher suggests them as it goes.
        seeds: with which each setting is trained.
    """

    name: str
    base: TrainConfig
    first: Plan
    title: str
    space: Space
    depths: Depths
    ablation: Ablation | None
    search: Search
    candidates: tuple[Candidate, ...] | None
    seeds: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Trials in all."""
        from tune_spaces.domains import sample

        if self.candidates is not None:
            return len(self.candidates)
        return len(sample(self.space, self.search.samples, self.search.seed))  # a finite space may have fewer


def plan_sweep(request: SweepRequest, *, plan_one: Callable[[TrainConfig], Plan] = plan_run) -> SweepPlan:
    """Check a request, and list its trials where they can be listed.

    Args:
        request: what the user asks for.
        plan_one: plans one run.

    Raises:
        UserError: an unknown setting; nothing to try; no setting at all that can be built; or seeds with which no
            winner can be trained.
    """
    from tune_spaces.domains import sample

    ablation, base = request.ablation, _with_test(request)
    space = space_for(request)
    search = search_for(request)
    _refuse_misfits(request, search)
    seeds = request.seeds or (base.seed,)
    candidates = None
    if search.kind == "tpe":
        _check_tpe(base, space, seeds)
        first = _first_buildable(base, sample(space, 16, search.seed), plan_one)
    else:
        settings = _distinct(base, _listed(space, ablation, search))
        candidates = tuple(Candidate(setting, seed) for setting in settings for seed in seeds)
        first = _first_buildable(base, settings, plan_one)
    for seed in request.winner_seeds:  # now, not after hours: a seed may have no list, a class no descriptions
        plan_one(winner_config(first.config, seed))
    title = ablation.title if ablation else _TITLES.get(request.space or "", "Given values")
    notes = tuple(dict.fromkeys([*(ablation.notes if ablation else ()), *first.notes]))
    plan = SweepPlan("", base, first, title, space, request.depths, ablation, search, candidates, seeds, notes)
    what = ablation.name if ablation else request.space or "grid"
    return replace(plan, name=f"sweep-{base.method}-{what}-{_digest(plan)[:10]}")


def _with_test(request: SweepRequest) -> TrainConfig:
    """Return the base, scored on the test lists only where every trial is to be: it must learn all their classes."""
    base = request.base
    scored = request.score_all or (request.ablation is not None and not base.protocol.holdout_classes)
    return replace(base, test=base.test and scored)


def _refuse_misfits(request: SweepRequest, search: Search) -> None:
    """Raise UserError for flags that are right by themselves, but make the result meaningless or the sweep endless."""
    base, keys = request.base, [text.partition("=")[0].strip() for text in request.grid]
    rules = [
        (
            base.selection != "test-best",
            "selection=test-best lets test scores choose, and stop, trials: take selection=last or select",
        ),
        (
            search.scheduler == "none" or base.scale.workers == 1,
            f"--scheduler {search.scheduler} stops trials of one worker alone; leave it out, or pass --workers 1",
        ),
        (len(set(keys)) == len(keys), "a key is given by --grid twice; write all its values in one: KEY=A,B,C"),
        (request.concurrent >= 0, f"--concurrent {request.concurrent} must not be negative (0: as many as fit)"),
        (
            not request.winner_seeds or search.objectives[0].metric.startswith("select."),
            f"the first --objective chooses the winner, and the least {search.objectives[0].metric} says nothing of "
            "accuracy: put a select one first, or pass --winner-seeds 0",
        ),
        (
            not (request.score_all and base.protocol.holdout_classes),
            "--score-all does not go with protocol.holdout_classes: the test lists have classes that trials do not "
            "learn; leave one out",
        ),
        (base.optim.epochs > 0, "optim.epochs=0 trains nothing: every setting would be the same"),
    ]
    refuse([message for holds, message in rules if not holds])


def _check_tpe(base: TrainConfig, space: Space, seeds: Sequence[int]) -> None:
    if len(seeds) > 1:
        raise UserError("tpe learns from one run of each setting: give one seed (the winner is trained with several)")
    for key, domain in space.items():
        _distinct(
            base, [{key: value} for value in domain.all_values() or ()]
        )  # two texts of one value train one run twice


def _listed(space: Space, ablation: Ablation | None, search: Search) -> list[Setting]:
    from tune_spaces.domains import grid, sample

    if ablation is not None:
        return [{**row.setting, **more} for row in ablation.rows for more in grid(space)]
    return grid(space) if search.kind == "grid" else sample(space, search.samples, search.seed)


def _distinct(base: TrainConfig, settings: Sequence[Setting]) -> list[Setting]:
    """Return each setting once; two texts of one would be trained side by side as the same run.

    Raises:
        UserError: there are two texts of one setting.
    """
    found: dict[str, Setting] = {}
    for setting in settings:
        try:
            key = digest_of(to_plain(overridden(base, setting)))
        except UserError:  # its trial will report it
            key = digest_of(dict(setting))
        same = found.setdefault(key, setting)
        if same != setting:
            raise UserError(f"{label_of(same)} and {label_of(setting)} are one setting: write it once, or alike")
    return list(found.values())


def _first_buildable(base: TrainConfig, settings: Sequence[Setting], plan_one: Callable[[TrainConfig], Plan]) -> Plan:
    """Plan the first setting that can be built: a mistake in one is its trial's, one in all ends the sweep here."""
    problems: dict[str, None] = {}
    for setting in settings:
        try:
            return plan_one(overridden(base, setting))
        except UserError as error:
            problems[str(error)] = None
    reasons = list(problems)
    more = f"; and {len(reasons) - 3} other problems" if len(reasons) > 3 else ""
    raise UserError(f"none of {len(settings)} settings can be trained: {'; '.join(reasons[:3])}{more}")


def _digest(plan: SweepPlan) -> str:
    """Return a digest of what is asked; more samples are the same question."""
    search, ablation, first, text = plan.search, plan.ablation, plan.first, plan.base.text
    return digest_of(
        [
            replace(plan.base, seed=0).digest(),
            {key: str(domain) for key, domain in plan.space.items()},
            [dict(row.setting) for row in ablation.rows] if ablation else None,
            [search.kind, search.scheduler, search.seed, search.grace],
            [[objective.metric, objective.mode] for objective in search.objectives],
            list(plan.seeds),
            [first.data_digest, first.facts.weights_digest, first.split.digest, dict(first.split.lists)],
            [_file_digest(first.start), _file_digest(text.descriptions), text.n, text.model, text.prompt_id],
            code_version(),
        ]
    )


def _file_digest(path: str | Path | None) -> str:
    """Return the digest of a file's content: not every setting reads it, but trials that do depend on it."""
    if path is None:
        return ""
    file = local_file(path)
    return file_sha256(file) if file.is_file() else ""
