"""The forecast of a plan: shards, memory, traffic and hours, for its number of workers and for one.

Counts are exact, and memory follows from shapes. Seconds come from the newest finished run of the same kind in OUT,
from the figures of ``docs/SCALING.md``, or from assumptions; the last lines name the source (``rates.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pipelines.config.text import plural
from pipelines.planning.costs import StepCost, step_cost
from pipelines.planning.rates import ASSUME, Rates, rates_for
from pipelines.shards.clip_store import OPEN_SHARDS, ClipStore
from pipelines.storage.place import is_uri
from pipelines.training.batches import passes_per_step
from pipelines.training.parts import Parts, shares

if TYPE_CHECKING:
    from pipelines.planning.plan import Plan


AHEAD = 4  # passes of clips on the host: two prefetched, one being read, one in use
PROCESS = 900e6  # bytes of a worker before it opens data: torch, open_clip, Ray
ROW = 700  # bytes of a worker's memory for each row of the manifest
COPIES = 2  # bytes for each frozen weight that autocast's copy in bf16 takes


def forecast(plan: Plan) -> list[str]:
    """Return the lines that ``--dry-run`` adds to a plan; without training, only those about scoring."""
    from pipelines.protocols.split import classes_of
    from pipelines.training.build import build_method

    config, world = plan.config, plan.config.scale.workers
    method = build_method(config, frames=plan.facts.frames, classes=classes_of(plan.split), meta=True)
    cost = step_cost(method, plan.facts.frames, plan.split.train_classes)
    layout = layout_of(plan) if plan.facts.steps else None
    rates = rates_for(plan, cost, layout.drawn if layout else 0.0)
    lines = [f"workers    {world} x {'1 GPU' if config.scale.gpu else f'{config.scale.cpus_per_worker:g} CPU core(s)'}"]
    if layout is not None:
        share, passes = _share(plan, world)
        lines[0] += (
            f": {plan.facts.steps // config.optim.epochs:,} steps an epoch, {plan.facts.steps:,} in all; "
            f"a step is {share} clips a worker in {passes} {'pass' if passes == 1 else 'passes'}"
        )
        lines += [*_reading(plan, layout), *_memory(plan, cost, layout), _network(plan)]
    return [*lines, *_hours(plan, cost, rates, layout)]


def _share(plan: Plan, world: int) -> tuple[int, int]:
    """Return the most clips of a worker's step, and the number of its passes."""
    optim, parts = plan.config.optim, plan.config.data.parts if world > 1 else 1
    clips = max(shares(optim.batch_size, parts, world))
    return clips, passes_per_step(optim.batch_size, optim.micro_batch, world, parts)


# ------------------------------------------------------------------------------------------------------ what is read


@dataclass(frozen=True)
class ShardsRead:
    """Fewest and most shards that a worker reads from, and the bytes of the most."""

    fewest: int
    most: int
    held: int


@dataclass(frozen=True)
class Layout:
    """Where the training clips lie.

    Attributes:
        anywhere: shards of each worker if it may read any clip.
        apart: shards of each worker if the data is cut into parts; None where it cannot be cut.
        parts: how many parts ``apart`` is for.
        rows: rows of the manifest.
        drawn: bytes of the frames of a clip that an epoch takes.
        mapped: bytes of the shards that a worker maps at once.
    """

    anywhere: ShardsRead
    apart: ShardsRead | None
    parts: int
    rows: int
    drawn: float
    mapped: int


def layout_of(plan: Plan) -> Layout:
    """Count shards and bytes."""
    config, world, examples = plan.config, plan.config.scale.workers, plan.split.train
    store = ClipStore(config.data.dir)
    sizes = {shard.file: shard.bytes for shard in store.index.shards}
    parts = max(world, config.data.parts)
    owned = [{store.place(example.clip_id)[0] for example in examples}]
    apart = None
    if 1 < parts <= config.optim.batch_size:
        cut = Parts.cut(store, examples, config.optim.batch_size, parts)
        apart = _shards_read(cut.shards(store, examples, world), sizes)
    return Layout(
        _shards_read(owned, sizes),
        apart,
        parts,
        store.manifest.num_rows,
        sum(sizes.values()) / sum(shard.rows for shard in store.index.shards) / len(store.offsets),
        sum(sorted(sizes.values())[-OPEN_SHARDS:]),
    )


def _shards_read(shards: Sequence[set[str]], sizes: dict[str, int]) -> ShardsRead:
    return ShardsRead(
        min(map(len, shards)), max(map(len, shards)), max(sum(sizes[name] for name in own) for own in shards)
    )


def _reading(plan: Plan, layout: Layout) -> list[str]:
    config, world = plan.config, plan.config.scale.workers
    clips = config.optim.batch_size * (plan.facts.steps // config.optim.epochs) / world
    ways = {1: f"any of {layout.anywhere.most:,} shards ({amount(layout.anywhere.held)})"}
    if layout.apart is not None:
        few, many = layout.apart.fewest, layout.apart.most
        span_of_shards = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        ways[layout.parts] = f"{span_of_shards} shards of its own ({amount(layout.apart.held)})"
    chosen = config.data.parts
    return [
        f"reads      {clips:,.0f} clips = {amount(clips * layout.drawn)} a worker and epoch, from {ways.pop(chosen)}",
        *(f"           with data.parts={parts}: from {way}" for parts, way in ways.items()),
    ]


# -------------------------------------------------------------------------------------------- memory and the network


def _memory(plan: Plan, cost: StepCost, layout: Layout) -> list[str]:
    """Return the memory of a worker, without what allocators and kernels add."""
    trainable, frozen = plan.facts.trainable, plan.facts.total - plan.facts.trainable
    clips, passes = _share(plan, plan.config.scale.workers)
    clips = -(-clips // passes)
    kept = cost.kept(clips)
    if plan.config.optim.precision == "bf16":
        kept = kept // 2 + COPIES * frozen
    parts = {"frozen": 4 * frozen, "trained": 4 * trainable, "gradients": 4 * trainable, "AdamW": 8 * trainable}
    parts[f"activations of {clips} clips (less by optim.micro_batch)"] = kept
    ahead = AHEAD * clips * layout.drawn
    host = PROCESS + ROW * layout.rows + ahead
    own = layout.apart if plan.config.data.parts > 1 and layout.apart else layout.anywhere
    mapped = min(layout.mapped, own.held)
    where, more = ("GPU", "") if plan.config.scale.gpu else ("host", " more")
    return [
        f"memory     {where} {amount(sum(parts.values()))} a worker: "
        + ", ".join(f"{amount(size)} {what}" for what, size in parts.items()),
        f"           host {amount(host)}{more}: process, manifest, {amount(ahead)} of clips "
        f"read ahead; at most {amount(mapped)} of shards mapped, which count as page cache",
    ]


def ring_bytes(trainable: int, world: int) -> float:
    """Return the bytes that each rank sends in a step: gradients in fp32, by ring all-reduce."""
    return 2 * (world - 1) / world * 4 * trainable


def _network(plan: Plan) -> str:
    world = plan.config.scale.workers
    if world == 1:
        return "network    nothing: one worker"
    sent = amount(ring_bytes(plan.facts.trainable, world))
    return f"network    {sent} a step and rank: gradients of what trains, by ring all-reduce"


# ------------------------------------------------------------------------------------------------------------ hours


@dataclass(frozen=True)
class Step:
    """Seconds of one step of one worker; a thread reads the clips meanwhile."""

    compute: float
    waiting: float
    reading: float
    network: float

    @property
    def seconds(self) -> float:
        """Seconds from one step to the next."""
        return max(self.compute + self.waiting, self.reading) + self.network

    @property
    def bound(self) -> str:
        """The part that takes longest."""
        parts = {"compute": self.compute, "data": max(self.waiting, self.reading), "network": self.network}
        return max(parts, key=lambda name: parts[name])


def step_of(plan: Plan, cost: StepCost, rates: Rates, drawn: float, world: int) -> Step:
    """Return one step with ``world`` workers; ``drawn``: bytes read for each clip."""
    clips, passes = _share(plan, world)
    network = ring_bytes(plan.facts.trainable, world) / (1e9 * rates.assumed.network)
    if rates.exposed is not None:
        network = rates.exposed * (world - 1) / world
    return Step(
        cost.gmacs(clips, passes) / rates.gmacs,
        clips * rates.wait,
        clips * drawn / (1e9 * rates.assumed.disk),
        network,
    )


def scoring_seconds(plan: Plan, cost: StepCost, rates: Rates, world: int) -> float:
    """Return the seconds of all scoring, with that of each epoch where the epoch is chosen by it."""
    from pipelines.evaluation.reading import ORDERS

    config, tests = plan.config, [len(test.examples) for test in plan.split.tests]
    orders = 1 + len(ORDERS) if config.data.probe else 1
    videos = orders * sum(tests) if config.test else 0
    chosen_on = {"last": 0, "select": len(plan.split.select), "test-best": tests[0] if tests else 0}
    videos += config.optim.epochs * chosen_on[config.selection] + 2 * len(plan.split.select)  # scores, and decides
    rate = rates.views or rates.gmacs / cost.clip.forward
    return videos * config.data.clips * config.data.crops / world / rate


def _hours(plan: Plan, cost: StepCost, rates: Rates, layout: Layout | None) -> list[str]:
    asked = plan.config.scale.workers
    parts = {world: _parts(plan, cost, rates, layout, world) for world in dict.fromkeys((asked, 1))}
    totals = {world: sum(part.seconds for part in own) for world, own in parts.items()}
    lines = []
    for world, own in parts.items():
        head = "expected" if world == asked else ""
        listed = ", ".join(part.text for part in own)
        lines.append(f"{head:<10} {span(totals[world])} with {plural(world, 'worker')}: {listed}")
        if layout is not None and world == asked:
            lines.append(f"           {_step_text(plan, cost, rates, layout)}")
    if asked > 1:
        lines[-1] += f"; {totals[1] / totals[asked]:.1f} times as long"
    return [*lines, *(f"           {source}" for source in _sources(plan, rates, layout))]


class _Part(NamedTuple):
    """A part of a run, with the seconds that it takes."""

    text: str
    seconds: float


def _parts(plan: Plan, cost: StepCost, rates: Rates, layout: Layout | None, world: int) -> list[_Part]:
    """Return the parts of the run with ``world`` workers, in their order."""
    parts = [_Part(f"start-up {span(rates.start)}", rates.start)]
    if layout is not None:
        apart = layout.apart if world > 1 and plan.config.data.parts > 1 else None
        held = (apart or layout.anywhere).held
        if is_uri(plan.config.data.dir):
            fetch = held / (1e9 * rates.assumed.network)
            parts.append(_Part(f"fetching {amount(held)} {span(fetch)} the first time", fetch))
        training = plan.facts.steps * step_of(plan, cost, rates, layout.drawn, world).seconds
        parts.append(_Part(f"training {span(training)}", training))
    scoring = scoring_seconds(plan, cost, rates, world)
    return [*parts, _Part(f"scoring {span(scoring)}", scoring)]


def _step_text(plan: Plan, cost: StepCost, rates: Rates, layout: Layout) -> str:
    step = step_of(plan, cost, rates, layout.drawn, plan.config.scale.workers)
    return (
        f"a step {step.seconds:.3g} s: compute {step.compute:.3g}{_prompts(plan, cost, rates)}, reading "
        f"{step.reading:.3g} meanwhile, waiting for data {step.waiting:.3g}, network {step.network:.3g}; {step.bound} "
        "takes longest"
    )


def _prompts(plan: Plan, cost: StepCost, rates: Rates) -> str:
    seconds = _share(plan, plan.config.scale.workers)[1] * cost.text.training / rates.gmacs
    return f" ({seconds:.3g} of it {len(plan.split.train_classes)} class prompts)" if seconds else ""


def _sources(plan: Plan, rates: Rates, layout: Layout | None) -> list[str]:
    assumed = []
    if layout is not None:
        assumed.append(f"reading {rates.assumed.disk:g} GB/s a worker")
        if plan.config.scale.gpu and not rates.views:
            assumed.append("augmentation on the GPU takes no time")
        if rates.exposed is None and plan.config.scale.workers > 1:
            assumed.append(f"network {rates.assumed.network:g} GB/s, nothing hidden behind compute")
    names = "gpu=TFLOP/s,disk=GB/s,network=GB/s"
    return [*rates.sources, *([f"ASSUMED: {'; '.join(assumed)} ({ASSUME}={names} replaces it)"] if assumed else [])]


# ------------------------------------------------------------------------------------------------------------ words


def amount(size: float) -> str:
    """Return bytes as text, in powers of 1000."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def span(seconds: float) -> str:
    """Return seconds as text."""
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 48.0)):
        if seconds < length:
            return f"{seconds:.3g} {unit}"
        seconds /= length if unit != "h" else 24
    return f"{seconds:,.3g} days"
