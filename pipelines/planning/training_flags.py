"""The command line that all training scripts share.

Cheap to import: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.resolve import help_lines, resolve
from pipelines.config.schema import (
    BackboneConfig,
    DataConfig,
    ProtocolConfig,
    ScaleConfig,
    TextConfig,
    TrackingConfig,
    TrainConfig,
)
from pipelines.config.values import whole_numbers
from vlmodels.errors import UserError
from vlmodels.paths import absolute


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What a training script is asked to do.

    Attributes:
        configs: for each method, the run of the first seed.
        seeds: of each method, one run for each.
        fresh: whether to start over where the same run is finished or can be resumed.
        dry_run: whether to stop after the plan.
    """

    configs: tuple[TrainConfig, ...]
    seeds: tuple[int, ...]
    fresh: bool
    dry_run: bool


def training_request(description: str | None, protocol: str, argv: Sequence[str] | None) -> TrainingRequest:
    """Parse the command line of a protocol's script.

    Raises:
        UserError: as :func:`config_from`.
    """
    args = training_parser(description or "", protocol).parse_args(argv)
    methods = list(dict.fromkeys(name.strip() for name in args.method.split(",") if name.strip())) or [""]
    configs = [config_from(_for_method(args, name, methods), protocol=protocol) for name in methods]
    return TrainingRequest(
        configs=tuple(configs), seeds=args.seeds or (configs[0].seed,), fresh=args.fresh, dry_run=args.dry_run
    )


def _for_method(args: argparse.Namespace, name: str, names: Sequence[str]) -> argparse.Namespace:
    """Return the flags of one of several methods, without the settings that others have and it has not."""
    from vlmodels import methods

    settings = {each: {field.name for field in fields(methods.get(each).Config)} for each in names}

    def is_for(item: str) -> bool:
        key = item.partition("=")[0].strip().removeprefix("method.")
        others = any(key in settings[other] for other in names)
        return not item.strip().startswith("method.") or key in settings[name] or not others

    return argparse.Namespace(**vars(args) | {"method": name, "set": [item for item in args.set if is_for(item)]})


def training_parser(description: str, protocol: str, *, prog: str = "") -> argparse.ArgumentParser:
    """Return the parser of a protocol's script (or of ``prog``): few flags, everything else through ``--set``."""
    parser = argparse.ArgumentParser(
        prog=prog or f"{protocol}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="settings for --set, with their defaults:\n" + help_lines(),
    )
    _add_data_flags(parser, protocol)
    _add_method_flags(parser)
    _add_protocol_flags(parser, protocol)
    _add_run_flags(parser)
    return parser


def _add_data_flags(parser: argparse.ArgumentParser, protocol: str) -> None:
    add = parser.add_argument
    if protocol == "zero_shot":
        add(
            "--data",
            default="",
            metavar="DIR|URI",
            help="folder that pipelines/ingest.py made; trains if other data is tested",
        )
        add("--test", action="append", default=[], metavar="[NAME=]DIR|URI", help="ingested data to score; repeatable")
    else:
        add("--data", required=True, metavar="DIR|URI", help="folder that pipelines/ingest.py made")
    if protocol == "retrieval":
        add("--captions", metavar="FILE", help="captions (default: captions.json of the data)")


def _add_method_flags(parser: argparse.ArgumentParser) -> None:
    from vlmodels import methods

    add = parser.add_argument
    add(
        "--method",
        default="msta",
        metavar="NAME[,NAME...]",
        help=f"{', '.join(methods.names())} (default: msta); several: one after the other by the same workers",
    )
    add("--preset", metavar="NAME", help="a published setting of the method (default: this protocol's, if it has one)")
    add("--backbone", default="toy", metavar="NAME", help="toy, toy-viclip, ViCLIP-B-16 or -L-14, or an open_clip name")
    add("--pretrained", metavar="TAG|FILE", help="open_clip tag or a local weight file (the toy has its own)")


def _add_protocol_flags(parser: argparse.ArgumentParser, protocol: str) -> None:
    from pipelines.protocols.paper_views import PAPERS

    if protocol == "retrieval":
        dataset = "published data set of the captions (msrvtt, msvd, lsmdc, didemo)"
    else:
        dataset = "published data set of the lists (hmdb51, ucf101, ssv2, k400, k600)"
    add = parser.add_argument
    add("--lists", metavar="DIR", help="split lists (default: those that ingest kept, else a seeded split)")
    add("--dataset", metavar="NAME", help=dataset)
    add("--views", metavar="PAPER", help=f"score with the frames, clips and crops of a paper: {', '.join(PAPERS)}")
    add("--start", metavar="RUN|URI", help="start from a trained run of the same method, or models:/NAME@ALIAS")
    add("--probe", action="store_true", help="also score shuffled, reversed and single frames")
    add("--descriptions", metavar="FILE|URI", help="description store that pipelines/describe.py made")


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=int, default=1, metavar="N", help="DDP workers, over the whole cluster (default: 1)")
    add("--gpu", action="store_true", help="one GPU for each worker")
    add(
        "--seeds",
        "--seed",
        type=whole_numbers,
        metavar="N[,N...]",
        help="seeds, and numbers of the published training subsets; several: one run for each, mean and deviation",
    )
    add("--out", default="runs", metavar="DIR|URI", help="where runs are kept (default: runs)")
    add("--mlflow", metavar="URI", help="tracking URI (default: $MLFLOW_TRACKING_URI, else sqlite in --out)")
    add("--experiment", default="vidadapt", metavar="NAME", help="MLflow experiment")
    add("--register", metavar="NAME", help="register the model under this name")
    add("--alias", default="champion", metavar="NAME", help="alias of the registered version (default: champion)")
    add("--move-alias", action="store_true", help="move the alias if it points to another run's version")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting; may be repeated")
    add("--fresh", action="store_true", help="start over, even if the same run is finished or can be resumed")
    add("--dry-run", action="store_true", help="check everything, print the resolved run and stop")


def config_from(args: argparse.Namespace, *, protocol: str) -> TrainConfig:
    """Resolve the configuration of the first seed: defaults, the preset of the protocol, flags, then ``--set``.

    Raises:
        UserError: unknown method, preset, paper or setting; data in a store that cannot be read.
    """
    _check_places(args)
    base = TrainConfig(
        start=args.start,
        backbone=BackboneConfig(name=args.backbone, pretrained=_weights(args)),
        data=_data(args, protocol),
        protocol=_protocol(args, protocol),
        text=TextConfig(descriptions=args.descriptions),
        scale=ScaleConfig(workers=args.workers, gpu=args.gpu),
        tracking=_tracking(args),
        out=args.out,
    )
    if args.seeds:
        if any(item.startswith("seed=") for item in args.set):
            raise UserError("--seeds and --set seed=... both give the seed; leave one out")
        base = replace(base, seed=args.seeds[0])
    preset = _preset(args, protocol)
    trained = None if args.start is None else _trained_settings(args)
    return resolve(method=args.method, preset=preset, base=base, overrides=args.set, trained=trained)


def _check_places(args: argparse.Namespace) -> None:
    """Check that local files are local paths, and that data in a store is there."""
    from pipelines.planning.sources import named_test
    from pipelines.shards.shard_cache import check_readable
    from pipelines.storage.place import is_uri
    from pipelines.videos.flags import local_only

    local_only(args, "lists", "captions", "pretrained")
    for place in (args.data, *(named_test(item)[1] for item in _tests(args))):
        if is_uri(place):
            check_readable(place)


def _tests(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the values of ``--test``, a flag of ``zero_shot.py`` alone."""
    return tuple(getattr(args, "test", ()))


def _weights(args: argparse.Namespace) -> str | None:
    if args.pretrained is None and args.backbone not in ("toy", "toy-viclip"):
        raise UserError(
            f"--backbone {args.backbone} needs --pretrained TAG or FILE; python -m vlmodels --list shows the tags "
            "(--pretrained none: random weights, for tests)"
        )
    if args.pretrained == "none":
        if args.register:
            raise UserError("a model on random weights cannot be registered: its backbone cannot be made again")
        return None
    return str(args.pretrained or "toy")


def _data(args: argparse.Namespace, protocol: str) -> DataConfig:
    data = DataConfig(dir=args.data, probe=args.probe)
    if args.views is None:
        return data
    from pipelines.protocols.paper_views import views

    seen = views(args.views, protocol, args.dataset or _dataset_of_lists(args.data))
    return replace(data, clips=seen.clips, crops=seen.crops)


def _dataset_of_lists(data: str) -> str:
    """Return the name of the published data set whose lists ingest kept in ``data``; "" if it kept none."""
    from pipelines.shards.clip_store import ClipStore
    from pipelines.storage.place import is_uri
    from pipelines.videos.kept_lists import LISTS
    from pipelines.videos.list_folder import kept_dataset

    if not data:
        return ""
    folder = ClipStore(data).folder if is_uri(data) else Path(data)
    return kept_dataset(folder / LISTS)


def _protocol(args: argparse.Namespace, protocol: str) -> ProtocolConfig:
    return ProtocolConfig(
        name=protocol,
        lists=args.lists,
        dataset=args.dataset,
        tests=_tests(args),
        captions=getattr(args, "captions", None),
    )


def _tracking(args: argparse.Namespace) -> TrackingConfig:
    return TrackingConfig(
        uri=tracking_uri(args.mlflow, args.out),
        experiment=args.experiment,
        register=args.register,
        alias=args.alias,
        move_alias=args.move_alias,
    )


def _trained_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the method's settings in the run to start from, as its adapter file holds them."""
    from pipelines.planning.start import start_file
    from vlmodels.checkpoint import about_adapter

    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(args.mlflow, args.out)  # MLflow looks there for models:/...
    about = about_adapter(start_file(args.start).read_bytes())
    if about.method != args.method:
        raise UserError(
            f"--start {args.start} was trained with the method {about.method}; pass --method {about.method}"
        )
    return dict(about.config)


def _preset(args: argparse.Namespace, protocol: str) -> str | None:
    """Return the preset that the user names, else that of the protocol if the method has it."""
    from vlmodels import methods

    if args.preset is not None:
        return str(args.preset)
    usual = PROTOCOLS[protocol].preset
    return usual if usual in methods.get(args.method).presets else None


def tracking_uri(given: str | None, out: str) -> str:
    """Return MLflow's URI: the given one, else $MLFLOW_TRACKING_URI, else that of a SQLite file.

    The file is ``mlflow.db`` in ``out``, the folder of the runs, or in ``runs`` where ``out`` is a store.
    """
    from pipelines.storage.place import is_uri

    if given:
        return given
    if chosen := os.environ.get("MLFLOW_TRACKING_URI"):
        return chosen
    folder = absolute("runs" if is_uri(out) else out.removeprefix("file://"))
    return f"sqlite:///{folder}/mlflow.db"
