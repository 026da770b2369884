"""Speeds for forecasts: measured in a finished run, measured by this project (``docs/SCALING.md``), or assumed."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from pipelines.config.text import plural
from pipelines.records.find import newest_records
from pipelines.storage.place import why
from pipelines.training.batches import passes_per_step
from vlmodels.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.planning.costs import StepCost
    from pipelines.planning.plan import Plan
    from pipelines.records.run_file import RunRecord


ASSUME = "VIDADAPT_ASSUME"
LOOKED_AT = 200  # newest run folders of OUT
START = 30.0  # seconds from the command to the first step: Ray and the workers' imports
START_NOTE = f"start-up {START:.0f} s (measured on 2 CPU cores)"
CPU = 38.0  # GMAC/s of training, fp32, for each core
AUGMENTED = 195.0 * 256 * 340 * 3  # bytes of stored frames a second and core


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """Speeds that were not measured; ``VIDADAPT_ASSUME=gpu=400,network=3`` gives other figures.

    Attributes:
        gpu: TFLOP/s that training reaches: 40 % of an A100's peak (312 in bf16, 19.5 in fp32: NVIDIA's data sheet).
        network: GB/s between two workers.
        disk: GB/s of reading, for each worker.
    """

    gpu: float
    network: float = 1.25
    disk: float = 0.5

    @classmethod
    def given(cls, precision: str) -> Assumed:
        """Return the defaults, with the figures of the environment in their place.

        Raises:
            UserError: unknown names, or values that are not positive numbers.
        """
        assumed = cls(gpu=125.0 if precision == "bf16" else 7.8)
        names = [field.name for field in fields(cls)]
        for item in filter(None, os.environ.get(ASSUME, "").split(",")):
            name, _, text = item.strip().partition("=")
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if name not in names or not 0 < value < float("inf"):
                raise UserError(f"{ASSUME}: '{item}' is not one of {', '.join(f'{n}=NUMBER' for n in names)}")
            assumed = replace(assumed, **{name: value})
        return assumed


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds of one worker, and where each comes from.

    Attributes:
        gmacs: multiply-accumulates (1e9) a second in training.
        wait: seconds for each clip in which a step waits for data, augmentation on a CPU included.
        views: scored views a second; 0: not measured.
        start: seconds before the first step.
        exposed: seconds that a step waits for gradients, without the factor (N-1)/N of the ring; None: not measured.
        sources: a line for each speed.
    """

    gmacs: float
    wait: float
    views: float
    start: float
    exposed: float | None
    assumed: Assumed
    sources: tuple[str, ...]


def rates_for(plan: Plan, cost: StepCost, drawn: float) -> Rates:
    """Return speeds for the plan's workers, from a run of this kind in ``OUT`` if there is one, else the constants.

    ``drawn``: bytes of the frames of one clip that an epoch reads.
    """
    config = plan.config
    assumed = Assumed.given(config.optim.precision)
    past, problems = _newest(plan)
    if past is not None:
        return _measured(past, plan, cost, assumed)
    if config.scale.gpu:
        return _assumed_gpu(plan, assumed, problems)
    return _cores(config.scale.cpus_per_worker, drawn, assumed, problems)


def measure_with(plan: Plan) -> str:
    """Return the command of a short run; later forecasts take their speed from it."""
    config = plan.config
    share = max(2, config.optim.batch_size // config.scale.workers)
    preset = f" --preset {config.preset}" if config.preset else ""
    gpu = " --gpu" if config.scale.gpu else ""
    return (
        f"few_shot.py with the same flags,{preset} --workers 1{gpu} --set protocol.shots=1 --set test=false --set "
        f"optim.epochs=2 --set optim.warmup_epochs=0 --set optim.batch_size={share}"
    )


# ----------------------------------------------------------------------------------------------------- no such run


def _assumed_gpu(plan: Plan, assumed: Assumed, problems: Sequence[str]) -> Rates:
    compute = (
        f"compute {assumed.gpu:g} TFLOP/s is ASSUMED: no epoch of this kind was measured on a GPU. To measure: "
        f"{measure_with(plan)}"
    )
    return Rates(
        gmacs=assumed.gpu * 500,
        wait=0.0,
        views=0.0,
        start=START,
        exposed=None,
        assumed=assumed,
        sources=(*problems, compute, START_NOTE),
    )


def _cores(cores: float, drawn: float, assumed: Assumed, problems: Sequence[str]) -> Rates:
    compute = (
        f"compute {CPU:g} GMAC/s and {AUGMENTED / 1e6:.0f} MB/s of augmentation a core, measured on 2 cores x86-64"
    )
    return Rates(
        gmacs=CPU * cores,
        wait=drawn / AUGMENTED / cores,
        views=0.0,
        start=START,
        exposed=None,
        assumed=assumed,
        sources=(*problems, compute, START_NOTE),
    )


# --------------------------------------------------------------------------------------------------- a finished run


def _newest(plan: Plan) -> tuple[RunRecord | None, list[str]]:
    """Return the record of the newest finished run of this kind, or why ``OUT`` could not be read."""
    try:
        records = [record for record in newest_records(plan.config.out, LOOKED_AT) if _alike(record, plan)]
    except (OSError, UserError) as error:
        return None, [f"no run of {plan.config.out} could be read: {why(error)}"]
    return max(records, key=lambda record: record.finished, default=None), []


def _alike(record: RunRecord, plan: Plan) -> bool:
    """Return whether a step of that run cost what a step of this one will."""
    config, old, scale = plan.config, record.config, record.config.scale
    same = (
        scale is not None
        and record.method == config.method
        and old.backbone.name == config.backbone.name
        and record.facts.frames == plan.facts.frames
        and old.optim.get("precision") == config.optim.precision
        and scale.gpu == config.scale.gpu
        and (config.scale.gpu or scale.cpus_per_worker == config.scale.cpus_per_worker)
    )
    return same and bool(record.history) and (record.cost.step_seconds or 0) > 0 and bool(record.finished)


def _measured(record: RunRecord, plan: Plan, cost: StepCost, assumed: Assumed) -> Rates:
    facts, optim, scale = record.facts, record.config.optim, record.config.scale
    assert scale is not None
    workers = scale.workers
    quick = min(record.history, key=lambda epoch: epoch.seconds)  # the first one warms up
    steps = max(1, (facts.train_clips or 0) // optim["batch_size"])
    clips = -(-optim["batch_size"] // workers)
    passes = passes_per_step(optim["batch_size"], optim["micro_batch"], workers)
    exposed = quick.network_wait or 0.0
    seconds = (quick.seconds - quick.data_wait - exposed) / steps
    gmacs = cost.gmacs(clips, passes) / max(seconds, 1e-9)
    views = (record.cost.scored_views_per_second or 0.0) / workers
    scored = sum(metrics.n_scored for metrics in record.metrics.tests.values())
    scored *= record.scoring.clips * record.scoring.crops
    start = record.seconds.total - record.seconds.train - (scored / (views * workers) if views else 0.0)
    machine = (facts.device or "cpu") if scale.gpu else (facts.machine or "a CPU")
    same = record.config.method_config == plan.config.method_config
    network = workers > 1 and quick.network_wait is not None
    where = f"measured in {record.name} ({record.finished[:10]}, {plural(workers, 'worker')}, {machine}"
    where += ")" if same else "; other method settings)"
    measured = ["compute", "data", *(["network"] if network else []), *(["scoring"] if views else [])]
    return Rates(
        gmacs=gmacs,
        wait=quick.data_wait / steps / clips,
        views=views,
        start=max(start, 0.0),
        exposed=exposed / steps / ((workers - 1) / workers) if network else None,
        assumed=assumed,
        sources=(f"{', '.join(measured)} and start-up {where}",),
    )
