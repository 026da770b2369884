"""The main job from end to end on the toy world: videos, shards, descriptions, seven runs, a registered model.

The demo needs no GPU and no internet. Each step is a command that you would use on real data, and is printed as it
runs. Results of an earlier demo are reused where nothing changed.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.run_script import run_script

if TYPE_CHECKING:
    from pipelines.runs.record import RunResult


MODEL = "vidadapt-demo"
TRAINING = (
    "optim.lr=3e-3",
    "optim.epochs=8",
    "optim.warmup_epochs=1",
    "optim.batch_size=32",
    "protocol.holdout=0.2",
    "selection=select",
)
FRAMES = 4  # in a clip; the papers take 8 and more
LISTS = {
    "fs_base_s1_train": "base_labels",
    "fs_base_s2_train": "base_labels",
    "fs_base_s3_train": "base_labels",
    "base_val": "base_labels",
    "novel_val": "novel_labels",
}
"""Lists of videos to ingest, each with the file of its labels."""


def _method(name: str, *settings: str) -> tuple[str, ...]:
    """Return the flags of a method with these settings."""
    return ("--method", name, *(part for setting in settings for part in ("--set", f"method.{setting}")))


# The paper's lambda, 0.005, is slow on so short a run; 0.1 was chosen on held-out training clips.
MSTA = ("layers=all", "dims=32", "scale=0.1")
METHODS: dict[str, tuple[str, ...]] = {
    "zero-shot": _method("zeroshot"),
    "AdaptFormer": _method("adaptformer", "dims=32"),
    "ViLT-CLIP": _method("viltclip", "tokens=4", "depth=0", "split=0"),  # all of the toy's 4 layers, half of them
    "OmniCLIP": _method("omniclip"),
    "M2-CLIP": _method("m2clip", "dims=32", "text_dims=32"),
    "MSTA": _method("msta", *MSTA, "alpha=0"),
    "MSTA + L_CC": _method("msta", *MSTA),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo: prepare the data, train every method, compare them, register the best and predict with it."""
    parser = argparse.ArgumentParser(
        prog="demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")
    parser.add_argument("--world", default="toy-ucf", choices=["toy-ucf", "toy-ssv2"], help="appearance or motion")
    args = parser.parse_args(argv)
    started = time.monotonic()

    from pipelines.planning.training_flags import tracking_uri

    prepared = prepare(args.out, args.world)
    results = train(prepared, args.out, args.world)
    best = max(results, key=lambda label: results[label].metrics.select.top1)
    report = compare(args.out, args.world, results)
    uri = tracking_uri(None, str(args.out / "runs"))
    model = publish(results[best], uri)
    step(f"Predict new clips, in no list, in a fresh process, with '{best}' from the registry")
    predict(args.out, args.world, model, uri)

    from pipelines.records.summary import table

    names = {result.record.name: label for label, result in results.items()}
    records = [result.record for result in results.values()]
    print(f"\n{table(records, names=names)}\n")
    print(f"'{best}' was chosen on held-out training clips and is registered as {model}")
    print(f"report    {report}")
    print(f"tracking  .venv/bin/mlflow ui --backend-store-uri {uri}")
    print(f"done in {time.monotonic() - started:.0f} s")
    return 0


def step(title: str) -> None:
    """Announce a part of the demo."""
    print(f"\n== {title}", flush=True)


def show(script: str, arguments: Sequence[str]) -> None:
    """Print the command that a user would type for this step."""
    print(f"$ python pipelines/{script}.py {shlex.join(arguments)}", flush=True)


class Prepared(NamedTuple):
    """What training needs: the folder of lists, the ingested data, the description store."""

    lists: Path
    data: Path
    descriptions: Path


def prepare(out: Path, world: str) -> Prepared:
    """Make videos, shards and descriptions."""
    lists = make_videos(out, world)
    return Prepared(lists, ingest_videos(out, world, lists), describe_classes(out, world, lists))


def make_videos(out: Path, world: str) -> Path:
    """Draw the world; return the folder of its lists."""
    from pipelines.toyworld.world import make_world

    step(f"Make the toy world '{world}' as mp4 files with published-style lists")
    before = time.monotonic()
    lists = make_world(out / "world", world)
    count = sum(1 for _ in (lists / "videos").glob("*.mp4"))
    print(f"{count} videos in {lists} ({time.monotonic() - before:.0f} s)")
    return lists


def ingest_videos(out: Path, world: str, lists: Path) -> Path:
    """Decode the videos of the base-to-novel lists; return the folder of the ingested data."""
    from pipelines import ingest

    step("Ingest: decode the listed videos into memory-mapped Arrow shards (Ray Data)")
    data = out / "data" / world
    arguments = ["--videos", *(str(lists / f"{name}.txt") for name in LISTS)]
    arguments += ["--labels", *(str(lists / f"{labels}.csv") for labels in LISTS.values())]
    arguments += ["--out", str(data), "--size", "48", "--frames", str(FRAMES), "--pool", "1"]
    show("ingest", arguments)
    if ingest.main(arguments):
        raise SystemExit(1)
    return data


def describe_classes(out: Path, world: str, lists: Path) -> Path:
    """Import the published descriptions of the classes; return the description store."""
    from pipelines import describe

    step("Describe the classes (published descriptions; a language model would be asked with --model)")
    folder = out / "descriptions"
    arguments = ["--labels", str(lists / "labels.csv"), "--out", str(folder), "--from-published", world]
    show("describe", arguments)
    if describe.main(arguments):
        raise SystemExit(1)
    return folder / "descriptions.sqlite"


def train(prepared: Prepared, out: Path, world: str) -> dict[str, RunResult]:
    """Train and score all methods, base to novel, with 2 DDP workers that do one after the other."""
    from pipelines.planning.plan import plan_run
    from pipelines.planning.training_flags import config_from, training_parser
    from pipelines.runs.run import run_plans

    step(f"Base-to-novel with 2 DDP workers (Ray Train), which do all {len(METHODS)} runs one after the other")
    plans = []
    for flags in METHODS.values():
        arguments = ["--data", str(prepared.data), "--lists", str(prepared.lists)]
        arguments += ["--descriptions", str(prepared.descriptions), *flags]
        arguments += ["--workers", "2", "--out", str(out / "runs"), "--experiment", world]
        arguments += [part for setting in TRAINING for part in ("--set", setting)]
        show("b2n", arguments)
        plans.append(plan_run(config_from(training_parser("", "b2n").parse_args(arguments), protocol="b2n")))
    results = {}
    for label, end in zip(METHODS, run_plans(plans), strict=True):
        if isinstance(end, Exception):
            raise end
        results[label] = end
    return results


def compare(out: Path, world: str, results: dict[str, RunResult]) -> Path:
    """Write the report that compares the methods; return its path."""
    from pipelines.reports.run_page import write_comparison

    names = {result.record.name: label for label, result in results.items()}
    links = {name: f"../runs/{name}/report/report.html" for name in names}
    records = [result.record for result in results.values()]
    return write_comparison(records, out / "report", title=f"Base-to-novel on {world}", names=names, runs=links)


def publish(best: RunResult, uri: str) -> str:
    """Register the best run as champion; return the model's URI."""
    from pipelines.config.schema import TrackingConfig
    from pipelines.runs.registry import register_model

    step(f"Register the best model as {MODEL}@champion (MLflow)")
    tracking = TrackingConfig(uri=uri, register=MODEL, move_alias=True)
    return register_model(Path(best.run_dir), tracking, best.record.tracking.run_id)


def predict(out: Path, world: str, model: str, uri: str) -> None:
    """Name the actions in new clips with the registered model, in a fresh process."""
    from pipelines.toyworld.world import unseen_clips
    from pipelines.videos.list_files import read_labels

    clips = unseen_clips(out / "unseen", world)
    names = read_labels(out / "world" / world / "labels.csv")  # base and novel
    arguments = [*(str(path) for path, _ in clips), "--model", model, "--mlflow", uri, "--topk", "3"]
    arguments += ["--labels", ",".join(names)]
    show("predict", arguments)
    subprocess.run([sys.executable, "-m", "pipelines.predict", *arguments], check=True)  # noqa: S603
    print("truth: " + "; ".join(f"{path.name}: {name}" for path, name in clips))


if __name__ == "__main__":
    run_script(main)
