"""The command line that all training scripts share. Cheap to import: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from pipelines import config as configs
from pipelines.config import TrainConfig
from vlmodels.errors import UserError


def training_parser(description: str, command: str) -> argparse.ArgumentParser:
    """Parser of a training script; few flags, everything else through ``--set``."""
    from vlmodels import methods

    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="settings for --set, with their defaults:\n" + configs.help_lines(),
    )
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="folder that pipelines/ingest.py made")
    add("--method", default="msta", metavar="NAME", help=f"one of {', '.join(methods.names())} (default: msta)")
    add("--preset", metavar="NAME", help="a published setting of the method (default: this protocol's, if it has one)")
    add("--backbone", default="toy", metavar="NAME", help="toy, toy-viclip, ViCLIP-B-16 or -L-14, or an open_clip name")
    add("--pretrained", metavar="TAG|FILE", help="open_clip tag or a local weight file (the toy has its own)")
    add("--lists", metavar="DIR", help="folder with published split lists; without: a seeded split of your own data")
    add("--descriptions", metavar="FILE", help="description store that pipelines/describe.py made")
    add("--workers", type=int, default=1, metavar="N", help="DDP workers, over the whole cluster (default: 1)")
    add("--gpu", action="store_true", help="one GPU for each worker")
    add("--seed", type=int, default=1, metavar="N", help="seed, and number of the published training subset")
    add("--out", default="runs", metavar="DIR|URI", help="where runs are kept (default: runs)")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else sqlite in --out)")
    add("--experiment", default="vidadapt", metavar="NAME", help="MLflow experiment")
    add("--register", metavar="NAME", help="register the model under this name")
    add("--alias", default="champion", metavar="NAME", help="alias of the registered version (default: champion)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting; may be repeated")
    add("--fresh", action="store_true", help="start over, even if the same run is finished or can be resumed")
    add("--dry-run", action="store_true", help="check everything, print the resolved run and stop")
    return parser


def config_from(args: argparse.Namespace, *, protocol: str) -> TrainConfig:
    """Resolve the configuration: defaults, the preset of the protocol, flags, then ``--set``.

    Raises:
        UserError: unknown method, preset or setting.
    """
    from vlmodels import methods

    preset = args.preset
    if preset is None and protocol in methods.get(args.method).presets:
        preset = protocol
    defaults = TrainConfig()
    base = replace(
        defaults,
        backbone=replace(defaults.backbone, name=args.backbone, pretrained=_weights(args)),
        data=replace(defaults.data, dir=args.data),
        protocol=replace(defaults.protocol, name=protocol, lists=args.lists),
        text=replace(defaults.text, descriptions=args.descriptions),
        scale=replace(defaults.scale, workers=args.workers, gpu=args.gpu),
        tracking=replace(
            defaults.tracking,
            uri=tracking_uri(args.mlflow, args.out),
            experiment=args.experiment,
            register=args.register,
            alias=args.alias,
        ),
        seed=args.seed,
        out=args.out,
    )
    return configs.resolve(method=args.method, preset=preset, base=base, overrides=args.set)


def _weights(args: argparse.Namespace) -> str | None:
    if args.pretrained is None and args.backbone not in ("toy", "toy-viclip"):
        raise UserError(
            f"--backbone {args.backbone} needs --pretrained TAG or FILE; python -m vlmodels --list shows the tags "
            "(--pretrained none: random weights, for tests)"
        )
    if args.pretrained == "none":
        if args.register:
            raise UserError("a model on random weights cannot be registered: nobody could make its backbone again")
        return None
    return str(args.pretrained or "toy")


def tracking_uri(given: str | None, out: str) -> str:
    """The given URI, the environment's, or a SQLite file beside local runs."""
    from pipelines.tracking import default_uri

    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri("runs" if "://" in out else out)
