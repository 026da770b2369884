"""``run.json``, the record of a finished run: its fields, its reader and its writer.

``vlmodels.run_folder`` reads ``scoring`` and ``decision`` of it by itself, as it imports nothing of ``pipelines``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import Field, StrictBool, StrictInt, ValidationError, model_validator

from pipelines.config.plain import flatten
from pipelines.config.protocols import PROTOCOLS
from pipelines.records.decision import RunDecision
from pipelines.records.part import JsonPart, Number, first_problem
from pipelines.storage.files import file_sha256
from vlmodels.errors import UserError, unprintable

RECORD = "run.json"
PREDICTIONS = "predictions.npz"
"""Scores and features of a run's test sets, beside its record."""
ADAPTER = "adapter.safetensors"
"""The trained parameters, beside the record."""
SCHEMA = 2
"""Version of ``run.json``; raised when a field changes its meaning."""

DIRECTIONS = ("t2v", "v2t")
RANKED = ("R@1", "R@5", "R@10", "MdR", "MnR")
SELECTIONS = {
    "last": "the last",
    "select": "best on held-out training clips",
    "test-best": "best on the test list, as published",
}
"""``selection`` of a run to which epoch was kept."""


class Readable(Protocol):
    """An open file."""

    def read(self) -> bytes:
        """Return the whole content."""


def read(source: Path | Readable, place: str = "", *, finite: bool = False) -> RunRecord:
    """Read the record of a run.

    Args:
        source: path of ``run.json``, or an open stream of it.
        place: what messages call the run's folder; by default the path's.
        finite: whether NaN and infinities are refused.

    Raises:
        UserError: the file cannot be read, is of another version, or lacks a field; names the folder and the field.
    """
    place = place or str(source.parent if isinstance(source, Path) else "a run")
    try:
        content = source.read_bytes() if isinstance(source, Path) else source.read()
        values = json.loads(content, parse_constant=_refuse if finite else None)
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: its {RECORD} cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{place}: its {RECORD} cannot be read (it holds a {type(values).__name__}, not an object)")
    _check_version(values.get("schema"), place)
    try:
        return RunRecord.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{place}: its {RECORD} cannot be used ({first_problem(error)})") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is not a finite number")


def _check_version(schema: object, place: str) -> None:
    if schema == SCHEMA:
        return
    if type(schema) is not int:
        has = "no schema" if schema is None else f"the schema {ascii(schema)[:50]}"
        raise UserError(
            f"{place}: damaged, or written by an older version ({RECORD} has {has}, this version reads {SCHEMA})"
        )
    age = "an older" if schema < SCHEMA else "a newer"
    raise UserError(f"{place}: written by {age} version ({RECORD} has schema {schema}, this version reads {SCHEMA})")


def make(values: Mapping[str, Any], name: str) -> RunRecord:
    """Make the record of the run ``name`` that has just finished.

    Raises:
        UserError: the values make none; names the run and the field.
    """
    try:
        return RunRecord.model_validate(values)
    except ValidationError as error:
        raise UserError(
            f"{name}: no record can be made of it ({first_problem(error)}); its checkpoint is kept"
        ) from error


def write(folder: Path, record: RunRecord) -> None:
    """Write ``run.json`` into a run's folder."""
    (folder / RECORD).write_text(json.dumps(record.to_json(), indent=2) + "\n")


def with_files(record: RunRecord, folder: Path) -> RunRecord:
    """Return the record with the hashes of the files in its folder."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != RECORD}
    return RunRecord.model_validate({**record.to_json(), "files": files})


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return every number by its path; MLflow's names have no ``@``."""
    return {
        key.replace(".", "/").replace("@", ""): float(value)
        for key, value in flatten(metrics).items()
        if isinstance(value, (int, float))
    }


# ------------------------------------------------------------------------------------------------------- its parts


class Scoring(JsonPart):
    """How videos were looked at for the scores."""

    frames: StrictInt
    clips: StrictInt
    crops: StrictInt
    sampling: str
    stride: StrictInt
    average: str = "softmax"


class Backbone(JsonPart):
    """The backbone's name, the file or name of its weights (None: random), and its frames' mean and deviation."""

    name: str
    pretrained: str | None
    statistics: str = "own"


class ProtocolSettings(JsonPart):
    """Settings of the protocol."""

    shots: StrictInt
    holdout: Number = 0.0
    holdout_classes: Number = 0.0
    hmdb_names: str = "as_published"
    class_names: str = "dataset"
    train_list: str | None = None


class ScaleSettings(JsonPart):
    """What a run ran on."""

    workers: StrictInt
    gpu: StrictBool
    cpus_per_worker: Number


class TrackingSettings(JsonPart):
    """Where the model was to be registered."""

    registered_name: str | None = Field(default=None, alias="register")
    alias: str = "champion"


class Settings(JsonPart):
    """The configuration of a run; ``method_config``, ``optim`` and ``augment`` are settings by their names."""

    backbone: Backbone
    method_config: Mapping[str, Any]
    protocol: ProtocolSettings
    optim: Mapping[str, Any]
    augment: Mapping[str, Any]
    scale: ScaleSettings | None = None
    tracking: TrackingSettings = TrackingSettings()
    start: str | None = None


class Start(JsonPart):
    """The run whose adapter a run started from; empty where that is not known."""

    name: str = ""
    protocol: str = ""
    dataset: str = ""
    data_digest: str = ""


class Accuracy(JsonPart):
    """Top-1 accuracy in percent."""

    top1: Number


class Probe(JsonPart):
    """Accuracies with frames in another order, and with a single frame."""

    shuffled: Accuracy
    reversed: Accuracy
    single: Accuracy


class SetMetrics(JsonPart):
    """Scores of a test set in percent: ``top1`` and ``top5``, or ranks in both directions for retrieval.

    Accuracies that a protocol has not are NaN, and are not written.
    """

    n_listed: StrictInt
    n_scored: StrictInt
    n_quarantined: StrictInt = 0
    top1: Number = math.nan
    top5: Number = math.nan
    chance: Number | None = None
    probe: Probe | None = None
    t2v: Mapping[str, Number] = {}
    v2t: Mapping[str, Number] = {}

    def missing(self, protocol: str) -> Iterator[str]:
        """Yield the scores that a protocol needs and that are not there."""
        if protocol != "retrieval":
            yield from (name for name in ("top1", "top5") if name not in self.model_fields_set)
            return
        for direction in DIRECTIONS:
            yield from (f"{direction}.{rank}" for rank in RANKED if rank not in getattr(self, direction))


class HeldOut(JsonPart):
    """Scores on held-out training clips, in percent."""

    top1: Number = 0.0


class Metrics(JsonPart):
    """Scores of all test sets by name, of held-out training clips, and base-to-novel's harmonic mean."""

    __pydantic_extra__: dict[str, SetMetrics]

    select: HeldOut = HeldOut()
    hm: Number | None = None

    @property
    def tests(self) -> Mapping[str, SetMetrics]:
        """Scores by test set."""
        return self.__pydantic_extra__


class Cost(JsonPart):
    """Speeds, memory and size; None where nothing was measured."""

    step_seconds: Number | None = None
    train_clips_per_second: Number | None = None
    scored_views_per_second: Number | None = None
    peak_memory_mb: Number | None = None
    gmacs_video: Number | None = None
    trainable: StrictInt | None = None


_NO_LOSS = frozenset(
    (
        "epoch",
        "lr",
        "seconds",
        "data_wait",
        "network_wait",
        "network_bytes_per_step",
        "clips_per_second",
        "train_top1",
    )
)


class Epoch(JsonPart):
    """Numbers of an epoch of training, NaN where they are missing; the loss's terms have names of their method's."""

    epoch: Number = math.nan
    loss: Number = math.nan
    seconds: Number = 0.0
    data_wait: Number = 0.0
    network_wait: Number | None = None
    train_top1: Number | None = None
    select_top1: Number | None = None

    @property
    def terms(self) -> Mapping[str, float]:
        """The loss and, of a method with several, its terms."""
        return {key: value for key, value in self.to_json().items() if _is_term(key)}


def _is_term(key: str) -> bool:
    return key not in _NO_LOSS and not key.startswith("select_")


class Facts(JsonPart):
    """What a run met: data, machine and code."""

    trainable: StrictInt
    total: StrictInt | None = None
    frames: StrictInt | None = None
    train_clips: StrictInt | None = None
    select_clips: StrictInt = 0
    classes: Mapping[str, StrictInt] = {}
    view_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_source: str = ""
    split_digest: str = ""
    data_digest: str = ""
    descriptions_digest: str = ""
    weights_digest: str | None = None
    code_version: str = ""
    git: str = ""
    python: str = ""
    torch: str = ""
    open_clip: str = ""
    ray: str = ""
    machine: str = ""
    device: str = ""


class Seconds(JsonPart):
    """How long a run took, and its parts."""

    total: Number
    train: Number = 0.0


class Tracking(JsonPart):
    """The run in MLflow."""

    run_id: str | None = None


class RunRecord(JsonPart):
    """A finished run: what it was, what it scored, what it cost, what it met.

    ``classes`` has the names of each test set's classes (none for retrieval), ``unscored`` the videos of each that
    could not be decoded, with the reason, ``workers`` the machine of each rank (of old runs an empty list), ``files``
    the SHA-256 of the files beside it (of old runs none).
    """

    version: StrictInt = Field(alias="schema")
    name: str
    group: str
    protocol: str
    dataset: str
    method: str
    preset: str | None
    seed: StrictInt
    scoring: Scoring
    lists: Mapping[str, str] = {}
    start: Start = Start()
    config: Settings
    metrics: Metrics
    decision: RunDecision | None = None
    cost: Cost
    history: tuple[Epoch, ...]
    selection: str
    epoch_kept: StrictInt = 0
    facts: Facts
    classes: Mapping[str, tuple[str, ...]]
    unscored: Mapping[str, tuple[tuple[str, str], ...]] = {}
    seconds: Seconds
    restarts: StrictInt = 0
    workers: Mapping[str, str] | tuple[str, ...] = {}
    finished: str
    tracking: Tracking = Tracking()
    files: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if character := unprintable(self.name):
            yield f"its name {ascii(self.name)[:100]} holds the character {character}"
        if self.protocol not in PROTOCOLS:
            yield f"its protocol is '{self.protocol}', none of {', '.join(PROTOCOLS)}"
        if self.selection not in SELECTIONS:
            yield f"its selection is '{self.selection}', none of {', '.join(SELECTIONS)}"
        if self.protocol == "b2n" and self.classes and self.classes.keys() != {"base", "novel"}:
            yield "its test sets are not base and novel"
        for name in self.classes:
            if name not in self.metrics.tests:
                yield f"metrics.{name} is missing"
            else:
                missing = self.metrics.tests[name].missing(self.protocol)
                yield from (f"metrics.{name}.{score} is missing" for score in missing)
