"""Clips per second of ``predict.py`` on Ray against a bare loop; seconds of planning; memory by number of videos.

    python benchmarks/predict.py [rate] [plan] [memory] [--clips 200] [--rounds 3] [--model DIR] [--videos DIR]

*rate*: "bare" is a loop by hand in one process with all of its threads: ``read_views``, ``score``, one video after the
other. "ours" is ``predict_many`` on Ray with a table as output; its rate is that of the summary, without the start of
Ray and of the first batch. Both take turns on the same videos, so that other load slows both; the ratio of each pair
counts, and the median of these.

*plan*: seconds until the plan of 100,000 videos is made, of a CSV and of a folder tree, in processes of their own.

*memory*: peak memory (RSS) of the driver for few and for many videos, which a fake decoder makes up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from vlmodels.video import VideoInfo

WHAT = ("rate", "plan", "memory")
LISTED = 100_000
LABELS = ("walking", "sitting", "clapping")
FEW, MANY = 2_000, 20_000


def made_up(_: str, reader) -> tuple[np.ndarray, VideoInfo]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Stand in for the decoder: tiny grey frames."""
    return np.full((reader.clips, reader.frames, 32, 32, 3), 99, np.uint8), VideoInfo(32, 32, 25.0, 40, "fake")


def main() -> None:
    """Measure what is asked for, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", nargs="*", metavar="WHAT", help=f"{', '.join(WHAT)} (default: all)")
    add("--clips", type=int, default=200, metavar="N", help="videos of a round (default: 200)")
    add("--rounds", type=int, default=3, metavar="N", help="pairs of measurements (default: 3)")
    add("--model", type=Path, metavar="DIR", help="a run (default: a toy backbone)")
    add("--videos", type=Path, metavar="DIR", help="folder of videos (default: some are drawn)")
    add("--seconds", type=float, default=4.0, metavar="S", help="length of the videos that are drawn (default: 4)")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.what) - set(WHAT):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(WHAT)}")
    if args.child:
        CHILDREN[args.child](json.loads(sys.stdin.read()))
        return
    with tempfile.TemporaryDirectory(prefix="vidadapt-predict-") as name:
        work = Path(name)
        model = args.model or toy_model(work / "model")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        if "plan" in (args.what or WHAT):
            plan(work)
        if "memory" in (args.what or WHAT):
            for count in (FEW, MANY):
                found = child("memory", {"count": count, "model": str(model), "work": name})
                print(f"memory: {count} videos, peak {found['peak'] / 1024:.0f} MiB in the driver", flush=True)
        if "rate" in (args.what or WHAT):
            rate(work, model, args)


def toy_model(folder: Path) -> Path:
    """Write a run of the toy backbone."""
    from vlmodels.checkpoint import save_adapter
    from vlmodels.clip import create
    from vlmodels.methods.zeroshot import ZeroShot

    folder.mkdir()
    save_adapter(folder, ZeroShot(create("toy", weights="toy", num_frames=8), ZeroShot.Config()))
    return folder


def child(name: str, request: dict[str, object]) -> dict[str, float]:
    """Run a function of ``CHILDREN`` in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", name],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def plan(work: Path) -> None:
    """Time the plan of a CSV and of a folder tree."""
    table, tree = work / "list.csv", work / "tree"
    table.write_text("video,start,end\n" + "".join(f"{n // 1000}/{n}.mp4,0.5,2.5\n" for n in range(LISTED)))
    for folder in range(LISTED // 1000):
        (tree / str(folder)).mkdir(parents=True)
        for number in range(1000):
            (tree / str(folder) / f"{number}.mp4").touch()
    for where in (table, tree):
        found = child("plan", {"where": str(where)})
        print(
            f"plan: {found['videos']} videos of a {'CSV' if where == table else 'tree'} in {found['seconds']:.2f} s "
            f"({found['cpu']:.2f} s of CPU), "
            f"{found['memory'] / 1024:.0f} MiB",
            flush=True,
        )


def child_plan(request: dict[str, str]) -> None:
    """List and plan the videos of an argument."""
    from pipelines.prediction.stages import plan_table
    from pipelines.prediction.videos import list_videos

    before, began, cpu = peak(), time.perf_counter(), time.process_time()
    listing = list_videos([request["where"]])
    table = plan_table(listing, range(len(listing)))
    found = {"videos": len(table), "seconds": time.perf_counter() - began, "memory": peak() - before}
    found["cpu"] = time.process_time() - cpu
    print(json.dumps(found))


def child_memory(request: dict[str, str]) -> None:
    """Predict made-up videos; print the driver's peak."""
    from pipelines.prediction.batch import predict_many
    from pipelines.prediction.results import Targets
    from pipelines.prediction.videos import list_videos
    from pipelines.prediction.work import BatchRequest

    count = int(request["count"])
    table = Path(request["work"], f"{count}.txt")
    table.write_text("".join(f"{number}.mp4\n" for number in range(count)))
    batch = BatchRequest(request["model"], labels=LABELS, device="cpu", decode=f"{Path(__file__).stem}:made_up")
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ["PYTHONPATH"])))
    out = Targets.of(str(table.with_suffix(".csv")), str(table.with_suffix("")))
    predict_many(list_videos([str(table)]), batch, out, lambda line: print(line, file=sys.stderr))
    print(json.dumps({"peak": peak()}))


def peak() -> int:
    """Return the peak memory (KiB) of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def rate(work: Path, model: Path, args: argparse.Namespace) -> None:
    """Compare clips per second of the bare loop and of Ray, in turn."""
    from pipelines.prediction.batch import predict_many
    from pipelines.prediction.on_ray import run_on_ray
    from pipelines.prediction.results import Targets
    from pipelines.prediction.videos import list_videos
    from pipelines.prediction.work import BatchRequest
    from vlmodels.predictor import load

    folder = args.videos or draw(work / "videos", args.clips, args.seconds)
    listing = list_videos([str(folder)])
    request = BatchRequest(str(model), labels=LABELS, device="cpu")
    predictor = load(model)
    predictor.set_labels(LABELS)
    pairs = []
    for number in range(args.rounds + 1):
        bare_rate = 0.0 if not number else bare(predictor, [listing.path(one.video) for one in listing])
        targets = Targets.of(str(work / f"{number}.csv"), overwrite=True)
        summary = predict_many(listing, request, targets, lambda _: None, run=run_on_ray)
        if number:  # the first round starts Ray
            pairs.append(summary.rate / bare_rate)
            print(f"rate: bare {bare_rate:.1f} clips/s, ours {summary.rate:.1f}: {pairs[-1]:.2f}", flush=True)
    print(f"rate: ours/bare = {median(pairs):.2f} (median of {len(pairs)} pairs)")


def bare(predictor, paths: list[Path]) -> float:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return clips per second of a loop written by hand."""
    from vlmodels.errors import UserError

    began = time.perf_counter()
    for path in paths:
        try:
            scores = predictor.score([predictor.read_views(path)])
        except UserError:
            continue
        predictor.answer(scores.probabilities[0])
    return len(paths) / (time.perf_counter() - began)


def draw(folder: Path, count: int, seconds: float) -> Path:
    """Draw H.264 videos of 340x256 pixels; many files of a few drawings."""
    import shutil

    from pipelines.toyworld.world import write_video

    import torch  # isort: skip

    folder.mkdir()
    for number in range(count):
        path = folder / f"{number}.mp4"
        if number < 4:
            scene = torch.randint(255, (3, 16, 21, 3), generator=torch.Generator().manual_seed(number))
            frames = scene.repeat_interleave(16, 1).repeat_interleave(16, 2).repeat(int(seconds * 25) // 3 + 1, 1, 1, 1)
            write_video(frames.to(torch.uint8), path)
        else:
            shutil.copy(folder / f"{number % 4}.mp4", path)
    return folder


CHILDREN = {"plan": child_plan, "memory": child_memory}

if __name__ == "__main__":
    main()
