"""The command line of ``pipelines/sweep.py``: that of the training scripts, and what is tried, how, and for what.

Cheap to import: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.schema import TrainConfig
from pipelines.config.values import whole_numbers
from pipelines.planning.training_flags import config_from, training_parser
from pipelines.sweeps.ablation import find_ablation, tower_depths
from pipelines.sweeps.request import APART, LAYERS, SEARCH, SweepRequest
from vlmodels.errors import UserError

LIST = "list"
HOLDOUT = 0.2
_DEPTHS = {"video": 12, "text": 12}
"""For what does not depend on the backbone; any depths will do."""


def parse(argv: Sequence[str] | None, description: str) -> tuple[argparse.Namespace, str]:
    """Return the arguments and the protocol; the flags are those of the protocol's own script.

    With ``--space list`` only ``space`` and ``method`` are read: no other flag is required then.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--method", "--space", "--protocol"):
        first.add_argument(flag)
    known, _ = first.parse_known_args(argv)
    protocol = known.protocol or _published_protocol(known.method or "msta", known.space)
    if protocol not in PROTOCOLS:
        protocol = "b2n"  # the parser will refuse the unknown one
    if known.space == LIST:
        return argparse.Namespace(space=LIST, method=known.method or "msta"), protocol
    args = _parser(description, protocol).parse_args(argv)
    return args, protocol


def _published_protocol(method: str, space: str | None) -> str:
    from tune_spaces.ablations import ablation_names, load_ablation
    from vlmodels import methods

    if space is None or method not in methods.names() or space not in ablation_names(method):
        return "b2n"
    return load_ablation(method, space, _DEPTHS).protocol


def list_spaces(method: str) -> str:
    """Return a line for each space of a method: its name, and what is tried.

    Raises:
        UserError: no such method.
    """
    from tune_spaces.ablations import ablation_names, load_ablation
    from tune_spaces.spaces import config_space, insertion_space
    from vlmodels import methods

    published = [load_ablation(method, name, _DEPTHS) for name in ablation_names(method)]
    lines = {table.name: f"{table.title} ({table.source}; {table.protocol})" for table in published}
    config = methods.get(method).Config
    with contextlib.suppress(UserError):  # a method without layers to choose
        for name, apart in ((LAYERS, False), (APART, True)):
            keys = ", ".join(insertion_space(config, depths=_DEPTHS, apart=apart))
            lines[name] = f"every range or number of layers, towers {'apart' if apart else 'alike'}: {keys}"
    with contextlib.suppress(UserError):  # one without settings to search
        lines[SEARCH] = f"all that may be tuned: {', '.join(config_space(config, depths=_DEPTHS))} and the optimizer's"
    lines["FILE.toml:NAME"] = "a table of your own"
    width = max(map(len, lines))
    return "\n".join([f"spaces of {method}", *(f"  {name:{width}}  {what}" for name, what in lines.items())])


def _parser(description: str, protocol: str) -> argparse.ArgumentParser:
    parser = training_parser(description, protocol, prog="sweep.py")
    _add_space(parser.add_argument_group("what is tried"))
    _add_search(parser.add_argument_group("how and for what"))
    return parser


def _add_space(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--protocol", choices=PROTOCOLS, help="protocol (default: that of the published ablation, else b2n)")
    add(
        "--space",
        metavar="NAME",
        help=f"a published ablation of the method (see --space list), '{LAYERS}': every range of layers, '{APART}' "
        f"of each tower, '{SEARCH}': all settings that may be tuned, or FILE.toml:NAME",
    )
    add(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="values of a setting, those with commas in quotes: \"method.targets='q,v','q,k,v'\"; may be repeated",
    )


def _add_search(group: argparse._ArgumentGroup) -> None:
    from tune_spaces.search import Kind, Scheduler

    add = group.add_argument
    add("--search", choices=get_args(Kind), default=None, help="default: grid, or random where --samples is given")
    add(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="settings that random and tpe try; a larger N later continues the sweep",
    )
    add("--scheduler", choices=get_args(Scheduler), default="none", help="what stops poor trials early")
    add("--grace", type=int, default=1, metavar="N", help="epochs before a trial may be stopped (default: 1)")
    add(
        "--objective",
        action="append",
        default=[],
        metavar="METRIC[:min]",
        help="default: select.top1, accuracy on held-out training clips (select.hm with protocol.holdout_classes); "
        "a second one (cost.trainable:min, cost.step_seconds:min) asks for the front of both",
    )
    add("--search-seed", type=int, default=1, metavar="N", help="seed of the search itself")
    add("--concurrent", type=int, default=0, metavar="N", help="trials at a time (default: as many as fit)")
    add(
        "--score-all",
        action="store_true",
        help="score every trial on the test lists too, for a table like those of published ablations; never to choose",
    )
    add(
        "--winner-seeds",
        default="1,2,3",
        metavar="N[,N...]",
        help="seeds with which the winner is trained again, on all training clips, and tested; 0: no winner",
    )
    add("--dashboard", default="127.0.0.1", metavar="HOST", help="where Ray's dashboard listens; none: no dashboard")


def request_from(args: argparse.Namespace, protocol: str) -> SweepRequest:
    """Return what the parsed flags ask for.

    Raises:
        UserError: unknown backbone, space, method, preset, paper or setting; seeds that are not whole numbers.
    """
    depths = tower_depths(args.backbone)
    ablation = find_ablation(args.space, method=args.method, depths=depths)
    return SweepRequest(
        base=_base_config(args, protocol, preset=ablation.preset if ablation else PROTOCOLS[protocol].preset),
        depths=depths,
        space=args.space,
        ablation=ablation,
        grid=tuple(args.grid),
        fixed=frozenset(item.partition("=")[0] for item in args.set),
        search=args.search,
        samples=args.samples,
        scheduler=args.scheduler,
        grace=args.grace,
        objectives=tuple(args.objective),
        search_seed=args.search_seed,
        seeds=tuple(args.seeds or ()),
        winner_seeds=_winner_seeds(args.winner_seeds),
        concurrent=args.concurrent,
        score_all=args.score_all,
        register=args.register,
        dashboard=None if args.dashboard == "none" else args.dashboard,
        fresh=args.fresh,
        dry_run=args.dry_run,
    )


def _base_config(args: argparse.Namespace, protocol: str, *, preset: str) -> TrainConfig:
    """Return the configuration that settings change: as a training script's, with clips held out to choose on.

    ``preset`` is taken where the user names none and the method has it.
    """
    from vlmodels import methods

    changed = argparse.Namespace(**vars(args))
    if args.preset is None and preset in methods.get(args.method).presets:
        changed.preset = preset
    if not any(item.startswith("protocol.holdout=") for item in args.set):
        changed.set = [*args.set, f"protocol.holdout={HOLDOUT}"]
    config = config_from(changed, protocol=protocol)
    return replace(config, tracking=replace(config.tracking, register=None))


def _winner_seeds(text: str) -> tuple[int, ...]:
    if text == "0":
        return ()
    try:
        return whole_numbers(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--winner-seeds {error}, or 0 for no winner") from None
