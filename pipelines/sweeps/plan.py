"""A sweep before it starts: its space, its trials where they can be listed, and all that would stop every one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.plain import digest_of, to_plain
from pipelines.config.schema import TrainConfig
from pipelines.sweeps.candidates import TITLES, Candidate, label_of, overridden
from pipelines.sweeps.flags import base_config
from pipelines.sweeps.space import (
    ablation_of,
    depths_of,
    search_of,
    space_for,
)
from vlmodels.errors import UserError, refuse

if TYPE_CHECKING:
    from pipelines.planning.plan import Plan
    from tune_spaces.ablation_file import Ablation
    from tune_spaces.domains import Setting, Space
    from tune_spaces.search import Search
    from tune_spaces.spaces import Depths


@dataclass(frozen=True)
class SweepPlan:
    """A checked sweep.

    Attributes:
        name: equal for the same question: another number of samples goes on with the same sweep.
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


def plan_sweep(args: argparse.Namespace, protocol: str) -> SweepPlan:
    """Resolve the command line.

    Raises:
        UserError: an unknown space, method or setting; nothing to try; no setting at all that can be built; or seeds
            with which no winner can be trained.
    """
    from pipelines.planning.plan import plan_run
    from pipelines.sweeps.candidates import final
    from pipelines.sweeps.flags import winner_seeds
    from tune_spaces.domains import sample

    depths = depths_of(args.backbone)
    ablation = ablation_of(args, depths)
    base = base_config(args, protocol, preset=ablation.preset if ablation else None)
    scored = args.score_all or (ablation is not None and not base.protocol.holdout_classes)
    base = replace(base, test=base.test and scored)
    space = space_for(args, ablation, depths)
    search = search_of(args, base, ablation)
    _refuse_misfits(args, base, search)
    seeds = tuple(args.seeds or (base.seed,))
    if search.kind == "tpe":
        if len(seeds) > 1:
            raise UserError(
                "tpe learns from one run of each setting: give one seed (the winner is trained with several)"
            )
        candidates = None
        for key, values in ((key, domain.all_values()) for key, domain in space.items()):
            _distinct(base, [{key: value} for value in values or ()])  # two texts of one value train one run twice
        first = _first_buildable(base, sample(space, 16, search.seed))
    else:
        distinct = _distinct(base, _listed(space, ablation, search))
        candidates = tuple(Candidate(setting, seed) for setting in distinct for seed in seeds)
        first = _first_buildable(base, distinct)
    for seed in winner_seeds(args):  # not hours later: a list that this seed has none of, a class without descriptions
        plan_run(final(first.config, seed))
    title = ablation.title if ablation else TITLES.get(args.space, "Given values")
    notes = tuple(dict.fromkeys([*(ablation.notes if ablation else ()), *first.notes]))
    plan = SweepPlan("", base, first, title, space, depths, ablation, search, candidates, seeds, notes)
    what = ablation.name if ablation else args.space or "grid"
    return replace(plan, name=f"sweep-{base.method}-{what}-{_digest(plan)[:10]}")


def _refuse_misfits(args: argparse.Namespace, base: TrainConfig, search: Search) -> None:
    """What is right by itself and would make a sweep's result mean nothing, or never end."""
    keys = [text.partition("=")[0].strip() for text in args.grid]
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
        (args.concurrent >= 0, f"--concurrent {args.concurrent} must not be negative (0: as many as fit)"),
        (
            args.winner_seeds == "0" or search.objectives[0].metric.startswith("select."),
            f"the first --objective chooses the winner, and the least {search.objectives[0].metric} says nothing of "
            "accuracy: put a select one first, or pass --winner-seeds 0",
        ),
        (
            not (args.score_all and base.protocol.holdout_classes),
            "--score-all does not go with protocol.holdout_classes: the test lists have classes that trials do not "
            "learn; leave one out",
        ),
        (base.optim.epochs > 0, "optim.epochs=0 trains nothing: every setting would be the same"),
    ]
    refuse([message for holds, message in rules if not holds])


def _listed(space: Space, ablation: Ablation | None, search: Search) -> list[Setting]:
    from tune_spaces.domains import grid, sample

    if ablation is not None:
        return [{**row.setting, **more} for row in ablation.rows for more in grid(space)]
    return grid(space) if search.kind == "grid" else sample(space, search.samples, search.seed)


def _distinct(base: TrainConfig, settings: Sequence[Setting]) -> list[Setting]:
    """Each setting once; two texts of one would be trained side by side as the same run.

    Raises:
        UserError: there are two texts of one setting.
    """
    found: dict[str, Setting] = {}
    for setting in settings:
        try:
            key = digest_of(to_plain(overridden(base, setting)))
        except UserError:  # its trial will tell
            key = digest_of(dict(setting))
        same = found.setdefault(key, setting)
        if same != setting:
            raise UserError(f"{label_of(same)} and {label_of(setting)} are one setting: write it once, or alike")
    return list(found.values())


def _first_buildable(base: TrainConfig, settings: Sequence[Setting]) -> Plan:
    """What is wrong with one setting is a trial's; what is wrong with all of them ends the sweep here."""
    from pipelines.planning.plan import plan_run

    problems: dict[str, None] = {}
    for setting in settings:
        try:
            return plan_run(overridden(base, setting))
        except UserError as error:
            problems[str(error)] = None
    told = list(problems)
    more = f"; and {len(told) - 3} other problems" if len(told) > 3 else ""
    raise UserError(f"none of {len(settings)} settings can be trained: {'; '.join(told[:3])}{more}")


def _digest(plan: SweepPlan) -> str:
    """Of what is asked: more samples are the same question."""
    from pipelines.planning.identity import code_version

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
    """Of a file's content: not every setting reads it, but trials that do depend on it."""
    from pipelines.storage.cache import local_file
    from pipelines.storage.files import file_sha256

    if path is None:
        return ""
    file = local_file(path)
    return file_sha256(file) if file.is_file() else ""
