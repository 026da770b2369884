"""The command line of ``pipelines/sweep.py``: that of the training scripts, and what is tried, how, and for what."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.schema import TrainConfig
from pipelines.config.values import whole_numbers
from pipelines.planning.flags import config_from, training_parser
from vlmodels.errors import UserError

LIST = "list"
SEARCH, LAYERS, APART = "search", "layers", "layers-apart"
"""Names of the spaces that follow from a method's settings: all that may be tuned; where it goes alone, in both towers
alike or in each apart."""

HOLDOUT = 0.2
_DEPTHS = {"video": 12, "text": 12}
"""Any will do for what doesn't depend on the backbone."""


def parse(argv: Sequence[str] | None, description: str) -> tuple[argparse.Namespace, str]:
    """The arguments and the protocol; its flags are those of the protocol's own script.

    Who asks for the list of spaces need say nothing else but the method.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--method", "--space", "--protocol"):
        first.add_argument(flag)
    known, _ = first.parse_known_args(argv)
    protocol = known.protocol or _published_protocol(known.method or "msta", known.space)
    if protocol not in PROTOCOLS:
        protocol = "b2n"  # the parser refuses it
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
    """A line for each space of a method: its name, and what is tried.

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
    from tune_spaces.search import Kind, Scheduler

    parser = training_parser(description, protocol, prog="sweep.py")
    group = parser.add_argument_group("what is tried")
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
    group = parser.add_argument_group("how and for what")
    add = group.add_argument
    add("--search", choices=get_args(Kind), default=None, help="default: grid, or random where --samples is given")
    add("--samples", type=int, default=0, metavar="N", help="settings that random and tpe try; more go on later")
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
        help="score every trial on the test lists too, for a table as published ablations have it; never to choose",
    )
    add(
        "--winner-seeds",
        default="1,2,3",
        metavar="N[,N...]",
        help="seeds with which the winner is trained again, on all training clips, and tested; 0: no winner",
    )
    add("--dashboard", default="127.0.0.1", metavar="HOST", help="where Ray's dashboard listens; none: no dashboard")
    return parser


def base_config(args: argparse.Namespace, protocol: str, *, preset: str | None = None) -> TrainConfig:
    """The configuration that settings change: as a training script's, with clips held out to choose on.

    ``preset`` is the published ablation's, where the user names none.

    Raises:
        UserError: unknown method, preset, paper or setting.
    """
    from vlmodels import methods

    wanted = preset or PROTOCOLS[protocol].preset
    if args.preset is None and wanted in methods.get(args.method).presets:
        args.preset = wanted
    if not any(item.startswith("protocol.holdout=") for item in args.set):
        args.set.append(f"protocol.holdout={HOLDOUT}")
    config = config_from(args, protocol=protocol)
    return replace(config, tracking=replace(config.tracking, register=None))


def winner_seeds(args: argparse.Namespace) -> tuple[int, ...]:
    """Seeds to train the winner with; none if there is to be no winner.

    Raises:
        UserError: no list of whole numbers.
    """
    if args.winner_seeds == "0":
        return ()
    try:
        return whole_numbers(args.winner_seeds)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--winner-seeds {error}, or 0 for no winner") from None
