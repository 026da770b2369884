"""The command line that all training scripts share. Cheap to import: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config.protocols import PROTOCOLS
from pipelines.config.resolve import help_lines, resolve
from pipelines.config.schema import TrainConfig
from pipelines.config.values import whole_numbers
from vlmodels.errors import UserError


def training_parser(description: str, protocol: str, *, prog: str = "") -> argparse.ArgumentParser:
    """Parser of the script of a protocol (or of ``prog``); few flags, everything else through ``--set``."""
    from pipelines.protocols.paper_views import PAPERS
    from vlmodels import methods

    parser = argparse.ArgumentParser(
        prog=prog or f"{protocol}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="settings for --set, with their defaults:\n" + help_lines(),
    )
    add = parser.add_argument
    zero_shot = protocol == "zero_shot"
    data = "folder that pipelines/ingest.py made" + ("; trains if other data is tested" if zero_shot else "")
    add("--data", required=not zero_shot, default="", metavar="DIR|URI", help=data)
    if zero_shot:
        add("--test", action="append", default=[], metavar="[NAME=]DIR|URI", help="ingested data to score; repeatable")
    if protocol == "retrieval":
        add("--captions", metavar="FILE", help="captions (default: captions.json of the data)")
    add("--method", default="msta", metavar="NAME", help=f"one of {', '.join(methods.names())} (default: msta)")
    add("--preset", metavar="NAME", help="a published setting of the method (default: this protocol's, if it has one)")
    add("--backbone", default="toy", metavar="NAME", help="toy, toy-viclip, ViCLIP-B-16 or -L-14, or an open_clip name")
    add("--pretrained", metavar="TAG|FILE", help="open_clip tag or a local weight file (the toy has its own)")
    add("--lists", metavar="DIR", help="split lists (default: those that ingest kept, else a seeded split)")
    published = (
        "captions are of (msrvtt, msvd, lsmdc, didemo)"
        if protocol == "retrieval"
        else ("lists are of (hmdb51, ucf101, ssv2, k400, k600)")
    )
    add("--dataset", metavar="NAME", help=f"published data set that the {published}")
    add("--views", metavar="PAPER", help=f"score with the frames, clips and crops of a paper: {', '.join(PAPERS)}")
    add("--start", metavar="RUN|URI", help="start from a trained run of the same method, or models:/NAME@ALIAS")
    add("--probe", action="store_true", help="also score shuffled, reversed and single frames")
    add("--descriptions", metavar="FILE|URI", help="description store that pipelines/describe.py made")
    add("--workers", type=int, default=1, metavar="N", help="DDP workers, over the whole cluster (default: 1)")
    add("--gpu", action="store_true", help="one GPU for each worker")
    add(
        "--seeds",
        "--seed",
        type=whole_numbers,
        metavar="N[,N...]",
        help="seeds, and numbers of the published training subsets; several: a run each, mean and deviation",
    )
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
    """Resolve the configuration: defaults, the preset of the protocol, flags, then ``--set``; of the first seed.

    Raises:
        UserError: unknown method, preset, paper or setting.
    """
    from pipelines.planning.sources import named_test
    from pipelines.protocols.paper_views import views
    from pipelines.shards.clip_store import ClipStore
    from pipelines.shards.shard_cache import check_readable
    from pipelines.storage.place import is_uri
    from pipelines.videos.flags import local_only
    from pipelines.videos.kept_lists import LISTS
    from pipelines.videos.list_folder import kept_dataset
    from vlmodels import methods

    local_only(args, "lists", "captions", "pretrained")
    for place in (args.data, *(named_test(item)[1] for item in getattr(args, "test", ()))):
        if is_uri(place):
            check_readable(place)
    preset = args.preset
    if preset is None and PROTOCOLS[protocol].preset in methods.get(args.method).presets:
        preset = PROTOCOLS[protocol].preset
    defaults = TrainConfig()
    data = replace(defaults.data, dir=args.data, probe=args.probe)
    if args.views is not None:
        folder = ClipStore(args.data).folder if is_uri(args.data) else Path(args.data)
        known = args.dataset or (kept_dataset(folder / LISTS) if args.data else "")
        seen = views(args.views, protocol, known)
        data = replace(data, clips=seen.clips, crops=seen.crops)
    base = replace(
        defaults,
        start=args.start,
        backbone=replace(defaults.backbone, name=args.backbone, pretrained=_weights(args)),
        data=data,
        protocol=replace(
            defaults.protocol,
            name=protocol,
            lists=args.lists,
            dataset=args.dataset,
            tests=tuple(getattr(args, "test", ())),
            captions=getattr(args, "captions", None),
        ),
        text=replace(defaults.text, descriptions=args.descriptions),
        scale=replace(defaults.scale, workers=args.workers, gpu=args.gpu),
        tracking=replace(
            defaults.tracking,
            uri=tracking_uri(args.mlflow, args.out),
            experiment=args.experiment,
            register=args.register,
            alias=args.alias,
        ),
        seed=args.seeds[0] if args.seeds else defaults.seed,
        out=args.out,
    )
    if args.seeds and any(item.startswith("seed=") for item in args.set):
        raise UserError("--seeds and --set seed=... both say the seed; leave one out")
    trained = _trained(args) if args.start is not None else None
    return resolve(method=args.method, preset=preset, base=base, overrides=args.set, trained=trained)


def _trained(args: argparse.Namespace) -> dict[str, Any]:
    """The method's configuration in the run to start from."""
    from pipelines.planning.start import start_file
    from vlmodels.checkpoint import about_adapter

    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(args.mlflow, args.out)  # where models:/... is looked for
    about = about_adapter(start_file(args.start).read_bytes())
    if about["method"] != args.method:
        raise UserError(f"--start {args.start} is of the method {about['method']}; pass --method {about['method']}")
    config: dict[str, Any] = about["config"]
    return config


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
    from pipelines.storage.place import is_uri

    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri("runs" if is_uri(out) else out)


def default_uri(out: str) -> str:
    """SQLite file beside the runs of ``out``."""
    return f"sqlite:///{Path(out.removeprefix('file://')).resolve()}/mlflow.db"
