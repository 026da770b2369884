"""Seconds that Ray Tune, records and MLflow add to a trial: sweeps of equal trials against one trial alone.

Alone: one training in a process that has imported everything, on one core. Sweeps: N and 2 N trials on two cores, two
at a time. The difference between the two sweeps is N trials without the costs of a sweep's start (processes, imports).

  python benchmarks/sweep.py [--trials 4] [--epochs 4]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

CLASSES, VIDEOS, CORES = 10, 32, 2


def main() -> None:
    """Measure one trial alone and two sweeps; print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4, help="N")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()

    from pipelines.cluster.session import connect

    connect(num_cpus=CORES)
    with tempfile.TemporaryDirectory() as place:
        data = make_data(Path(place))
        alone = one_alone(data, Path(place), args.epochs)
        few, _ = sweep(data, Path(place) / "few", args.epochs, args.trials)
        many, seconds = sweep(data, Path(place) / "many", args.epochs, 2 * args.trials)
    seconds = seconds[CORES:]  # the first trial of each process imports
    added = (many - few) * CORES / args.trials - statistics.fmean(seconds)
    print(f"one trial alone               {alone:7.1f} s")
    for count, wall in ((args.trials, few), (2 * args.trials, many)):
        ratio = wall / (count * alone)
        print(f"{count:3d} trials                    {wall:7.1f} s, {ratio:.2f} x N x one (target <= 1.15)")
    print(f"a trial in a full sweep       {statistics.fmean(seconds):7.1f} s (with both cores busy)")
    print(f"added to a trial              {added:7.2f} s (target <= 2)")


def make_data(place: Path) -> Path:
    """Write videos of noise to class folders, and ingest them."""
    import torch

    from pipelines import ingest
    from pipelines.toyworld.world import write_video

    random = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = place / "videos" / f"class {number}"
        folder.mkdir(parents=True)
        for video in range(VIDEOS):
            frames = random.integers(0, 256, (8, 56, 64, 3), dtype=np.uint8)
            write_video(torch.from_numpy(frames), folder / f"{number}_{video}.mp4")
    with contextlib.redirect_stdout(io.StringIO()):
        ingest.main(["--videos", str(place / "videos"), "--out", str(place / "data"), "--size", "48", "--frames", "4"])
    return place / "data"


def flags(data: Path, out: Path, epochs: int) -> list[str]:
    """Return the script's flags for the training."""
    settings = [f"optim.epochs={epochs}", "optim.warmup_epochs=1", "optim.batch_size=16"]
    common = ["--data", str(data), "--out", str(out), "--method", "adaptformer"]
    return common + [part for setting in settings for part in ("--set", setting)]


def one_alone(data: Path, out: Path, epochs: int) -> float:
    """Return the seconds of the second of two runs in this process; the first imports."""
    from pipelines.sweeps.candidates import Candidate
    from pipelines.sweeps.flags import parse, request_from
    from pipelines.sweeps.trial import SharedSettings, run_trial

    seconds = 0.0
    for number in range(2):
        args, protocol = parse([*flags(data, out / f"alone{number}", epochs), "--protocol", "supervised"], "")
        shared = SharedSettings(request_from(args, protocol).base, None)
        started = time.perf_counter()
        record = run_trial(shared, Candidate({"optim.weight_decay": "0.001"}, 1), lambda _: None)
        seconds = time.perf_counter() - started
        assert record.finished, record
    return seconds


def sweep(data: Path, out: Path, epochs: int, count: int) -> tuple[float, list[float]]:
    """Run a sweep of ``count`` settings of equal cost; return its seconds and those of each trial."""
    from pipelines import sweep as script

    decays = ",".join(f"{0.001 + 0.0001 * number:g}" for number in range(count))
    arguments = [*flags(data, out, epochs), "--protocol", "supervised", "--score-all", "--winner-seeds", "0"]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        script.main([*arguments, "--grid", f"optim.weight_decay={decays}"])
    wall = time.perf_counter() - started
    from pipelines.sweeps.folder import SweepFolder

    (folder,) = (out / "sweeps").iterdir()
    records = SweepFolder(folder).trials()
    assert [record.status for record in records] == ["finished"] * count
    return wall, [record.seconds for record in records]


if __name__ == "__main__":
    main()
