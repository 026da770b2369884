"""Seconds of whole commands, in imports: one import is ``python -c "import torch, open_clip"`` in the same rounds.

Every round times one import, then each row once, so that other load on the machine slows both; the table has the
medians. Videos, shards, descriptions and the model to predict with are made before, untimed. Processes leave their
output in a file: a pipe would stay open as long as Ray's daemons.

"CPU" is user and system time of a process and of the children that it waited for. Ray's daemons and workers that
nobody waited for are not in it.

A further job (method or seed) is a command with several jobs minus one with the first alone, for each job more. What
every job reports as its own in run.json is subtracted from both: seconds of its epochs, and its scored views by its
scored views per second. What is left is the cost of having a job: backbone, class texts, files, report, tracking.

  python benchmarks/startup.py [--rounds 5] [--only zero_shot,predict] [--demo [N]] [--project DIR] [--work DIR]

``--project`` times the scripts of another checkout, with the Python of its .venv if it has one.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

SCRIPTS = ("ingest", "describe", "zero_shot", "few_shot", "b2n", "supervised", "retrieval", "sweep", "predict", "demo")
WORLD, VIDEOS = "toy-ucf", 800
RUNS_OF_DEMO = 7
METHODS, SEEDS = ("adaptformer", "zeroshot", "linear"), ("1", "2", "3")
SHORT = ("--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0", "--set", "optim.batch_size=32")
MODEL = "startup"
IMPORT, BARE = 'import of torch and open_clip: the unit "import"', "bare Python"
OF_USER = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
"""Variables that would take the commands to another store or cluster."""
PAUSE = 1.0  # seconds before a script, in which Ray's daemons of the script before end
PREPARE = """
import sys
from pathlib import Path
from pipelines.demo import describe_classes, ingest_videos, make_videos
out, world = Path(sys.argv[1]), sys.argv[2]
lists = make_videos(out, world)
ingest_videos(out, world, lists)
describe_classes(out, world, lists)
"""


class CommandError(Exception):
    """A timed command failed, or left no result; the message has its output."""


class Timing(NamedTuple):
    """Seconds and CPU seconds (NaN where unknown) of a process, and what it printed."""

    seconds: float
    cpu: float
    output: str = ""


class Sample(NamedTuple):
    """One measurement of a row; ``must`` is the most that it may take, in ``unit``: "imports" or "s"."""

    what: str
    timing: Timing
    must: float | None = None
    unit: str = "imports"


def main() -> int:
    """Measure the rows in turn and print the table; return 1 if a command failed, 0 however long they took."""
    args, times = parse()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if sys.dont_write_bytecode:
        print("PYTHONDONTWRITEBYTECODE is set: processes compile again what they import")
    with tempfile.TemporaryDirectory(prefix="vidadapt-startup-") as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        samples, failed = measure(Bench(args.project.resolve(), work), times)
    print()
    print("\n".join(table(samples)))
    return 1 if failed else 0


def parse() -> tuple[argparse.Namespace, dict[str, int]]:
    """Return the flags, and how often each row is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    here = Path(__file__).parents[1]
    add("--rounds", type=int, default=5, metavar="N", help="measurements of each row (default: 5)")
    add("--only", metavar="NAME,...", help=f"of {', '.join(ROWS)} (default: all but demo)")
    add("--demo", type=int, nargs="?", const=1, metavar="N", help="also run the demo N times (default: once)")
    add("--project", type=Path, default=here, metavar="DIR", help="checkout to time (default: this one)")
    add("--work", type=Path, metavar="DIR", help="folder for data and runs; data is kept (default: a temporary one)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else [name for name in ROWS if name != "demo"]
    if unknown := set(names) - set(ROWS):
        parser.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    times = dict.fromkeys(names, args.rounds)
    if args.demo or "demo" in times:
        times["demo"] = args.demo or 1
    return args, times


def measure(bench: Bench, times: Mapping[str, int]) -> tuple[list[Sample], set[str]]:
    """Measure in rounds each row as often as ``times`` says; return the samples and the rows that failed."""
    samples: list[Sample] = []
    failed: set[str] = set()
    for number in range(max(times.values())):
        time.sleep(PAUSE)
        samples.append(Sample(IMPORT, bench.run("-c", "import torch, open_clip")))
        for name, wanted in times.items():
            if number >= wanted or name in failed:
                continue
            print(f"round {number + 1}: {name}", flush=True)
            try:
                samples += ROWS[name](bench)
            except CommandError as error:
                failed.add(name)
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
    return samples, failed


def table(samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the lines of the table: medians of each row, in the order in which they were measured."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.what, []).append(sample)
    seconds = {what: median([sample.timing.seconds for sample in group]) for what, group in groups.items()}
    units = {"imports": seconds[IMPORT], "s": 1.0}
    width = max(map(len, groups))
    yield f"{'what':{width}s}  runs  seconds     CPU  imports  must"
    for what, group in groups.items():
        cpu = median([sample.timing.cpu for sample in group])
        cpu_text = "-" if isnan(cpu) else f"{cpu:.2f}"
        imports = seconds[what] / units["imports"]
        line = f"{what:{width}s}  {len(group):4d}  {seconds[what]:7.2f} {cpu_text:>7s}  {imports:7.2f}"
        if must := group[0].must:
            verdict = "ok" if seconds[what] <= must * units[group[0].unit] else "OVER"
            line += f"  {must:4g} {group[0].unit:7s}  {verdict}"
        if BARE in groups and what.endswith("--help"):
            line += f", {seconds[what] / seconds[BARE]:.1f} x bare"
        yield line


@dataclass(frozen=True)
class Bench:
    """The checkout whose commands are timed, and the folder in which they work."""

    project: Path
    work: Path

    @cached_property
    def python(self) -> str:
        """The Python of the checkout's .venv, else this one."""
        own = self.project / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    @cached_property
    def shards(self) -> Path:
        """The demo's ingested data, made at the first use."""
        print("preparing videos, shards and descriptions", flush=True)
        self.run("-c", PREPARE, str(self.work), WORLD)
        shards = self.work / "data" / WORLD
        check((shards / "index.json").is_file(), f"no shards in {shards}", "")
        return shards

    @cached_property
    def registry(self) -> str:
        """The URI of a store with a registered model, trained at the first use."""
        data = str(self.shards)
        print("registering a model", flush=True)
        uri = f"sqlite:///{self.work}/registered/mlflow.db"
        arguments = ["--data", data, "--method", "adaptformer", *SHORT, "--out", str(self.work / "registered")]
        self.run("pipelines/b2n.py", *arguments, "--register", MODEL, "--mlflow", uri)
        return uri

    @property
    def clip(self) -> Path:
        """Some video of the toy world."""
        return min((self.work / "world" / WORLD / "videos").glob("*.mp4"))

    def run(self, *command: str) -> Timing:
        """Run a command of the checkout's Python and time it.

        Raises:
            CommandError: it failed.
        """
        environment = {key: value for key, value in os.environ.items() if key not in OF_USER}
        environment["PYTHONPATH"] = str(self.project)
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            before, started = cpu_of_children(), time.perf_counter()
            done = subprocess.run(
                [self.python, *command],
                cwd=self.project,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
            seconds, cpu = time.perf_counter() - started, cpu_of_children() - before
            output.seek(0)
            timing = Timing(seconds, cpu, output.read())
        check(done.returncode == 0, f"exit status {done.returncode} of {' '.join(command)}", timing.output)
        return timing

    def script(self, name: str, *arguments: str) -> Timing:
        """Time a script after a pause."""
        time.sleep(PAUSE)
        return self.run(f"pipelines/{name}.py", *arguments)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Give an empty folder; remove it at the end."""
        folder = Path(tempfile.mkdtemp(prefix="out-", dir=self.work))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def cpu_of_children() -> float:
    """Return the user and system seconds of all children that ended and were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def check(good: bool, problem: str, output: str) -> None:
    """Raise a CommandError with the problem and the output of the command unless all is good."""
    if not good:
        raise CommandError(f"{problem}\n{output}")


# ----------------------------------------------------------------------------------------------------------- rows


def zero_shot(bench: Bench) -> Iterator[Sample]:
    """Score the test videos of the demo's shards with one worker and with two."""
    for workers, must in ((1, 2.5), (2, 4.5)):
        timing, _ = jobs(bench, 1, "zero_shot", "--method", "zeroshot", workers=workers)
        yield Sample(f"zero-shot of {VIDEOS} toy videos, --workers {workers}", timing, must)


def seeds(bench: Bench) -> Iterator[Sample]:
    """Add seeds to a command."""
    yield further(bench, "seed", ("zero_shot", "--method", "zeroshot", "--seeds"), SEEDS)


def methods(bench: Bench) -> Iterator[Sample]:
    """Add methods to a command."""
    yield further(bench, "method", ("b2n", *SHORT, "--method"), METHODS)


def further(bench: Bench, kind: str, command: Sequence[str], values: Sequence[str]) -> Sample:
    """Time a command that ends with the first of the values, and with all; return the cost of each job more."""
    one, own_of_one = jobs(bench, 1, *command, values[0], workers=2)
    more, own_of_more = jobs(bench, len(values), *command, ",".join(values), workers=2)
    cost = ((more.seconds - own_of_more) - (one.seconds - own_of_one)) / (len(values) - 1)
    return Sample(f"each further {kind}, beyond its training and scoring", Timing(cost, nan), 0.3)


def jobs(bench: Bench, count: int, script: str, *arguments: str, workers: int) -> tuple[Timing, float]:
    """Time a script that does ``count`` jobs on the shards; return also the seconds of their training and scoring."""
    data = ("--test" if script == "zero_shot" else "--data", str(bench.shards))
    with bench.fresh() as out:
        timing = bench.script(script, *data, *arguments, "--out", str(out), "--workers", str(workers))
        found = sorted(out.glob("*/run.json"))
        check(len(found) == count, f"{len(found)} run.json instead of {count}", timing.output)
        return timing, sum(map(own_seconds, found))


def own_seconds(path: Path) -> float:
    """Return the seconds that a run spent on training and scoring, as its record says."""
    from pipelines.records import run_file

    record = run_file.read(path)
    videos = sum(metrics.n_scored for metrics in record.metrics.tests.values())
    check(videos == VIDEOS, f"{videos} scored videos instead of {VIDEOS} in {path}", "")
    views = videos * record.scoring.clips * record.scoring.crops
    return record.seconds.train + views / (record.cost.scored_views_per_second or nan)


def predict(bench: Bench) -> Iterator[Sample]:
    """Name the action in a clip with a model from the registry."""
    registry = bench.registry
    timing = bench.script("predict", str(bench.clip), "--model", f"models:/{MODEL}@champion", "--mlflow", registry)
    check(" %  " in timing.output, "no class was printed", timing.output)
    yield Sample("predict.py of one clip from the registry", timing, 2)


def demo(bench: Bench) -> Iterator[Sample]:
    """Run the demo from nothing, and once more."""
    with bench.fresh() as out:
        for what, must in (("make demo, once installed", 22), ("the demo's second run", 3)):
            timing = bench.script("demo", "--out", str(out))
            found = len(list(out.glob("runs/*/run.json")))
            check(found == RUNS_OF_DEMO, f"{found} run.json instead of {RUNS_OF_DEMO}", timing.output)
            yield Sample(what, timing, must)


def usage(bench: Bench) -> Iterator[Sample]:
    """Let a bare Python start and end, and every script print its help."""
    yield Sample(BARE, bench.run("-c", ""))
    for script in SCRIPTS:
        timing = bench.run("-m", f"pipelines.{script}", "--help")
        check("usage:" in timing.output, f"no help of {script}", timing.output)
        yield Sample(f"{script}.py --help", timing, 2, "s")


ROWS: dict[str, Callable[[Bench], Iterator[Sample]]] = {
    "zero_shot": zero_shot,
    "seeds": seeds,
    "methods": methods,
    "predict": predict,
    "demo": demo,
    "help": usage,
}


if __name__ == "__main__":
    sys.exit(main())
