"""The records of a sweep, as its three kinds of JSON file have them: sweep.json, trials/ID.json and winner.json."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic

from pipelines.config.plain import flatten
from pipelines.config.record import shown
from pipelines.sweeps.candidates import Candidate

if TYPE_CHECKING:
    from pipelines.sweeps.plan import SweepPlan

SCHEMA = 1
"""Version of the three kinds of file."""

STATUS = "status"
"""Key of a trial's status in its last report to Ray Tune."""

RECORD = "record"
"""Key of the whole record in that report; the status and the metrics stand in it as well, for the search."""

STARTED = "started"
"""The status of a trial that is running, or was when its session was cut off."""

ENDED = ("finished", "pruned", "diverged", "invalid")
"""How a trial ends for good; one that failed (a lost machine, a full disk) is tried again by the next session."""

GIVEN_UP = 2
"""In how many sessions a trial must have failed to be taken for one that always will."""

Numbers = Annotated[Mapping[str, float], pydantic.SkipValidation]
"""Numbers as they were written: a whole one stays whole."""


@dataclass(frozen=True)
class TrialTracking:
    """The MLflow run of a trial."""

    run_id: str | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A trial so far.

    Attributes:
        id: the candidate's.
        status: one of ``ENDED``, ``STARTED`` or "failed".
        message: why it did not finish.
        run: name of the training run; "" without one.
        failures: in how many sessions it failed.
        history: numbers of each epoch.
        metrics: by test set; ``select`` on held-out clips.
        cost: parameters, times, memory.
    """

    id: str
    label: str
    setting: Mapping[str, str]
    seed: int
    status: str = "failed"
    message: str = ""
    run: str = ""
    epochs: int = 0
    seconds: float = 0.0
    failures: int = 0
    history: tuple[Numbers, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cost: Numbers = field(default_factory=dict)
    tracking: TrialTracking = TrialTracking()

    @classmethod
    def of(cls, candidate: Candidate) -> TrialRecord:
        """Return the record of a trial that has no results yet."""
        return cls(candidate.id, candidate.label, dict(candidate.setting), candidate.seed)

    @property
    def finished(self) -> bool:
        """Whether it trained to its end and has scores."""
        return self.status == "finished"

    @property
    def ended(self) -> bool:
        """Whether it is not to be run again."""
        return self.status in ENDED or self.failures >= GIVEN_UP

    def numbers(self) -> dict[str, float]:
        """Return every number of metrics and cost by its dotted name: ``select.top1``, ``cost.trainable``."""
        flat = flatten({**self.metrics, "cost": self.cost})
        return {key: float(value) for key, value in flat.items() if isinstance(value, (int, float))}


def epoch_numbers(epoch: Mapping[str, float]) -> dict[str, float]:
    """Return an epoch's numbers by the names of objectives: ``select_top1`` is select.top1."""
    renamed = {
        name.replace("select_", "select.") if name.startswith("select_") else name: value
        for name, value in epoch.items()
    }
    return renamed | {"epoch": int(epoch["epoch"])}


@dataclass(frozen=True)
class ObjectiveRecord:
    """A metric by its dotted name, and whether it is to be ``max`` or ``min``."""

    metric: str
    mode: str


@dataclass(frozen=True)
class AblationRowRecord:
    """A line of an ablation: its setting, and a printed number for each column, or none."""

    label: str
    setting: Mapping[str, str]
    printed: tuple[float, ...] = ()


@dataclass(frozen=True)
class AblationRecord:
    """The table of settings that a sweep tries, and what its source prints of them."""

    method: str
    name: str
    title: str
    source: str
    protocol: str
    preset: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[AblationRowRecord, ...]
    notes: tuple[str, ...] = ()
    baseline: AblationRowRecord | None = None


@dataclass(frozen=True)
class SweepTracking:
    """The MLflow run of a sweep; ``key`` finds it again where a killed session could not note its ``run_id``."""

    run_id: str | None = None
    key: str = ""  # a sweep that an earlier version began has none
    uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep: what is tried, on what, how, and for what.

    Attributes:
        depths: layers of the towers ``video`` and ``text``.
        space: what each key may be, in words.
        samples: trials in all.
        scored_on_test: whether every trial is scored on the test lists too.
        config: the configuration that settings change, as ``run.json`` has it.
        started: when the first session began (UTC).
    """

    name: str
    method: str
    protocol: str
    dataset: str
    preset: str | None
    backbone: str
    depths: Mapping[str, int]
    title: str
    ablation: AblationRecord | None
    space: Mapping[str, str]
    search: str
    scheduler: str
    samples: int
    seeds: tuple[int, ...]
    search_seed: int
    objectives: tuple[ObjectiveRecord, ...]
    scored_on_test: bool
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    tracking: SweepTracking
    started: str

    @classmethod
    def of(cls, plan: SweepPlan, earlier: SweepRecord | None) -> SweepRecord:
        """Return a plan's record; start and MLflow run are those of an ``earlier`` session."""
        config, search, split = shown(plan.base), plan.search, plan.first.split
        known = SweepTracking() if earlier is None else earlier.tracking
        return cls(
            name=plan.name,
            method=plan.base.method,
            protocol=split.protocol,
            dataset=split.dataset,
            preset=plan.base.preset,
            backbone=plan.base.backbone.name,
            depths=dict(plan.depths),
            title=plan.title,
            ablation=None if plan.ablation is None else from_json(AblationRecord, asdict(plan.ablation)),
            space={key: str(domain) for key, domain in plan.space.items()},
            search=search.kind,
            scheduler=search.scheduler,
            samples=plan.count,
            seeds=plan.seeds,
            search_seed=search.seed,
            objectives=tuple(ObjectiveRecord(goal.metric, goal.mode) for goal in search.objectives),
            scored_on_test=plan.base.test,
            config=config,
            notes=plan.notes,
            tracking=SweepTracking(known.run_id, known.key or uuid.uuid4().hex, config["tracking"]["uri"]),
            started=earlier.started if earlier else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def tracked_as(self, run_id: str | None) -> SweepRecord:
        """Return the record with the MLflow run that it has."""
        return replace(self, tracking=replace(self.tracking, run_id=run_id))


@dataclass(frozen=True)
class WinnerRun:
    """A run that trained the winner again: its name, place (path or URI) and seed, and what it measured."""

    name: str
    run_dir: str
    seed: int
    metrics: Mapping[str, Any]
    cost: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class WinnerRecord:
    """The best setting, and its runs on all training clips.

    Attributes:
        trials: ids of the trials of this setting.
        chosen_on: the metric, by its dotted name.
        chosen_value: its mean over the trials.
        registered: URI of the registered model; None without one.
    """

    label: str
    setting: Mapping[str, str]
    trials: tuple[str, ...]
    chosen_on: str
    chosen_value: float
    runs: tuple[WinnerRun, ...]
    registered: str | None


Record = TypeVar("Record")


def to_json(record: TrialRecord | SweepRecord | WinnerRecord) -> dict[str, Any]:
    """Return the content of a record's file."""
    return {"schema": SCHEMA, **asdict(record)}


def from_json(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """Return the record that ``to_json`` made the content of.

    Raises:
        ValueError: a field is missing or has another type; the message names it.
    """
    record: Record = _READERS[kind].validate_python(content)
    return record


_READERS: Mapping[Any, pydantic.TypeAdapter[Any]] = {
    kind: pydantic.TypeAdapter(kind) for kind in (TrialRecord, SweepRecord, WinnerRecord, AblationRecord)
}
