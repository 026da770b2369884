"""A sweep before it starts: its space, its trials where they can be listed, and all that would stop every one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import OptimConfig, TrainConfig, digest_of, resolve, to_plain
from pipelines.sweep_arguments import APART, LAYERS, SEARCH, base_config
from vlmodels.errors import UserError, nearest, refuse

if TYPE_CHECKING:
    from pipelines.plan import Plan
    from tune_spaces.domains import Setting, Space
    from tune_spaces.search import Search
    from tune_spaces.spaces import Ablation, Depths

_TITLES = {LAYERS: "Layers", APART: "Layers of each tower", SEARCH: "Search"}
_COMMON = ("backbone", "data", "out", "protocol", "scale", "seed", "start", "test", "tracking")  # seeds have a flag
_TUNED = ("optim.lr", "optim.weight_decay")  # what a search varies beside the method's own settings


@dataclass(frozen=True)
class Candidate:
    """A setting with a seed: what one trial trains."""

    setting: Setting
    seed: int

    @property
    def id(self) -> str:
        """Its name among the sweep's trials."""
        return digest_of([dict(self.setting), self.seed])[:10]

    @property
    def label(self) -> str:
        """The setting as a reader sees it: ``layers=8-12, lr=0.001``."""
        return label_of(self.setting)


def label_of(setting: Setting) -> str:
    """A setting in short: the last part of each key, and its value."""
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in setting.items())


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
    from pipelines.plan import plan_run
    from pipelines.sweep_told import winner_seeds
    from pipelines.sweep_winner import final
    from tune_spaces.domains import sample

    depths = _depths(args.backbone)
    ablation = _ablation(args, depths)
    base = base_config(args, protocol, preset=ablation.preset if ablation else None)
    scored = args.score_all or (ablation is not None and not base.protocol.holdout_classes)
    base = replace(base, test=base.test and scored)
    space = _space(args, ablation, depths)
    search = _search(args, base, ablation)
    _refuse_misfits(args, base, search)
    seeds = tuple(args.seeds or (base.seed,))
    if search.kind == "tpe":
        if len(seeds) > 1:
            raise UserError(
                "tpe learns from one run of each setting: give one seed (the winner is trained with several)"
            )
        candidates = None
        for key, values in ((key, domain.every()) for key, domain in space.items()):
            _distinct(base, [{key: value} for value in values or ()])  # two texts of one value train one run twice
        first = _first_buildable(base, sample(space, 16, search.seed))
    else:
        distinct = _distinct(base, _listed(space, ablation, search))
        candidates = tuple(Candidate(setting, seed) for setting in distinct for seed in seeds)
        first = _first_buildable(base, distinct)
    for seed in winner_seeds(args):  # not hours later: a list that this seed has none of, a class without descriptions
        plan_run(final(first.config, seed))
    title = ablation.title if ablation else _TITLES.get(args.space, "Given values")
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
    from pipelines.plan import plan_run

    problems: dict[str, None] = {}
    for setting in settings:
        try:
            return plan_run(overridden(base, setting))
        except UserError as error:
            problems[str(error)] = None
    told = list(problems)
    more = f"; and {len(told) - 3} other problems" if len(told) > 3 else ""
    raise UserError(f"none of {len(settings)} settings can be trained: {'; '.join(told[:3])}{more}")


def overridden(config: TrainConfig, setting: Mapping[str, str], **changes: Any) -> TrainConfig:
    """A resolved configuration with a setting on top.

    Raises:
        UserError: an unknown key, a value that cannot be, or values that do not go together.
    """
    items = [f"{key}={value}" for key, value in setting.items()]
    changed = resolve(method=config.method, preset=None, base=config, overrides=items, trained=config.method_config)
    return replace(changed, preset=config.preset, **changes)


def _depths(backbone: str) -> Depths:
    """Layers of both towers."""
    import torch

    from vlmodels.clip import create

    with torch.device("meta"):
        spec = create(backbone, weights=None, num_frames=8).spec
    return {"video": spec.video_layers, "text": spec.text_layers}


def _ablation(args: argparse.Namespace, depths: Depths) -> Ablation | None:
    from tune_spaces.spaces import ablation, ablations, read_ablation

    if args.space in (None, SEARCH, LAYERS, APART):
        return None
    if ".toml:" in args.space:
        path, _, name = args.space.rpartition(":")
        found = read_ablation(path, name)
        if found.method != args.method:
            raise UserError(f"{args.space} is for {found.method}: pass --method {found.method}")
        return found
    published = ablations(args.method)
    if args.space in published:
        return ablation(args.method, args.space, depths)
    known = [*published, LAYERS, APART, SEARCH]
    raise UserError(
        f"unknown space '{args.space}'{nearest(args.space, known)}; spaces of {args.method}: {', '.join(known)}, or "
        "FILE.toml:NAME"
    )


def _space(args: argparse.Namespace, ablation: Ablation | None, depths: Depths) -> Space:
    """What is varied, beside an ablation's rows."""
    from tune_spaces.domains import parse_grid
    from tune_spaces.spaces import insertion_space, space_of
    from vlmodels import methods

    config = methods.get(args.method).Config
    space: dict[str, Any] = {}
    if args.space in (LAYERS, APART):
        space |= insertion_space(config, depths=depths, apart=args.space == APART)
    elif args.space == SEARCH:
        space |= space_of(config, depths=depths)
        names = [key.removeprefix("optim.") for key in _TUNED if key.removeprefix("optim.") in _names(OptimConfig)]
        space |= space_of(OptimConfig, depths=depths, prefix="optim.", names=names)
    fixed = {item.partition("=")[0] for item in args.set}
    space = {key: domain for key, domain in space.items() if key not in fixed}  # what the user sets is not searched
    given = dict(map(parse_grid, args.grid))
    rows = {key for row in ablation.rows for key in row.setting} if ablation else set()
    space |= given
    _check_keys(fixed, set(given), rows, {*space, *rows})
    if not space and ablation is None:
        raise UserError("nothing to try: name a --space (see --space list) or give values with --grid KEY=A,B,C")
    return space


def _check_keys(fixed: set[str], given: set[str], rows: set[str], tried: set[str]) -> None:
    """Raise UserError for keys that are said twice, and for those that all trials must have in common."""
    common = {key for key in tried if key.partition(".")[0] in _COMMON}
    refuse(
        [f"{key} is the same for all trials, which are compared on the same clips: no values to try" for key in common]
        + [f"{key}: given by --grid and by the ablation's rows; leave out one of the two" for key in given & rows]
        + [
            f"{key}: given by --set and tried by the sweep too; leave out one of the two"
            for key in sorted(fixed & tried - common)
        ]
    )


def _names(config: type) -> set[str]:
    return {field.name for field in fields(config)}


def _search(args: argparse.Namespace, base: TrainConfig, ablation: Ablation | None) -> Search:
    from tune_spaces.search import Objective, Search

    if ablation is not None and (args.search or "grid") != "grid":
        raise UserError("a published ablation is its rows: --search is grid; to search freely take --space search")
    default = "select.hm" if base.protocol.holdout_classes else "select.top1"
    objectives = tuple(map(Objective.parse, args.objective or [default]))
    _check_objectives([objective.metric for objective in objectives], base)
    return Search(
        kind=args.search or ("random" if args.samples and ablation is None else "grid"),
        samples=args.samples,
        scheduler=args.scheduler,
        objectives=objectives,
        seed=args.search_seed,
        epochs=base.optim.epochs,
        grace=args.grace,
    )


def _check_objectives(metrics: Sequence[str], base: TrainConfig) -> None:
    """Raise UserError for what a sweep must not choose by, or has no number of."""
    unseen = ("select.novel", "select.hm")
    known = ["select.top1", "select.top5", *(unseen if base.protocol.holdout_classes else ())]
    known += ["cost.trainable", "cost.step_seconds", "cost.gmacs_video"]
    known += ["cost.peak_memory_mb"] if base.scale.gpu else []  # a process that is kept knows no other trial's peak
    for metric in metrics:
        if metric in known:
            continue
        if metric in unseen:
            why = "no classes are held out; set protocol.holdout_classes, for instance 0.2"
        elif metric.startswith(("select.", "cost.")):
            why = "it is not measured"
        else:
            why = "nothing is chosen by scores on the test lists"
        raise UserError(f"--objective {metric}{nearest(metric, known)}: {why}; there are {', '.join(known)}")
    if not base.protocol.holdout and any(metric.startswith("select.") for metric in metrics):
        raise UserError("nothing is held out to choose on: set protocol.holdout above 0, for instance 0.2")


def _digest(plan: SweepPlan) -> str:
    """Of what is asked: more samples are the same question."""
    from pipelines.plan import code_version

    search, ablation, first, text = plan.search, plan.ablation, plan.first, plan.base.text
    return digest_of(
        [
            replace(plan.base, seed=0).digest(),
            {key: str(domain) for key, domain in plan.space.items()},
            [dict(row.setting) for row in ablation.rows] if ablation else None,
            [search.kind, search.scheduler, search.seed, search.grace],
            [[objective.metric, objective.mode] for objective in search.objectives],
            list(plan.seeds),
            [first.data_digest, first.facts["weights_digest"], first.split.digest, dict(first.split.lists)],
            [_file_digest(first.start), _file_digest(text.descriptions), text.n, text.model, text.prompt_id],
            code_version(),
        ]
    )


def _file_digest(path: str | Path | None) -> str:
    """Of a file's content: not every setting reads it, but trials that do depend on it."""
    from pipelines.data.folder import file_sha256
    from pipelines.data.shardcache import local_file

    if path is None:
        return ""
    file = local_file(path)
    return file_sha256(file) if file.is_file() else ""
