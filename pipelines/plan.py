"""A run before it starts: everything that can be checked or counted without training, in one place."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import config as configs
from pipelines.checks import check
from pipelines.config import TrainConfig
from pipelines.data.batches import batch_problems, view_positions
from pipelines.data.clipstore import ClipStore
from pipelines.protocols import Split, clips_of, make_split
from vlmodels.errors import UserError, noted

if TYPE_CHECKING:
    from vlmodels.methods.base import Method

Descriptions = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Plan:
    """A checked run: what will be trained, on what, and what it weighs."""

    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    data_digest: str
    facts: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        from vlmodels import methods

        config, frames = self.config, self.facts["frames"]
        if config.preset is None or not self.facts["trainable"]:
            return self.split.notes
        published = methods.get(config.method).presets[config.preset].recipe.frames
        if published == frames:
            return self.split.notes
        told = f"the preset takes {published} frames, these clips have {frames}: ingest with --frames {published}"
        return (*self.split.notes, told)

    @property
    def name(self) -> str:
        """Name of the run: equal if it would compute the same, but for what ``ScaleConfig`` says of workers."""
        parts = [
            self.config.digest(),
            self.split.digest,
            self.data_digest,
            configs.digest_of(self.descriptions),
            code_version(),
            _weights_digest(self.config.backbone.pretrained),
        ]
        return f"{self.split.protocol}-{self.config.method}-{configs.digest_of(parts)[:10]}"


def plan_run(config: TrainConfig) -> Plan:
    """Check ``config`` against the data, the backbone's shape and the descriptions.

    Raises:
        UserError: naming everything that is wrong, at once where several things can be seen together.
    """
    from vlmodels.clip import check_weights

    problems = check(config)
    store = split = method = descriptions = None
    with noted(problems):
        check_weights(config.backbone.name, config.backbone.pretrained)
    if config.data.dir:
        with noted(problems):
            store = ClipStore(config.data.dir)
            config = _with_absolute_paths(config, store)
            split = make_split(config.protocol, clips_of(store.manifest), store.classes, config.seed)
    if store is not None and split is not None:
        with noted(problems):
            view_positions(store.offsets, config.data.clips)
        with noted(problems):
            method = build_method(config, frames=store.segments, classes=split.train_classes, meta=True)
        problems += _batch_problems(config, split, method)
        if method is not None:
            problems += _misfits(config, store, split, method)
            with noted(problems):
                descriptions = _descriptions(config, method, split)
    if problems or store is None or split is None or method is None:
        raise UserError("; ".join(dict.fromkeys(problems)))
    trainable = sum(p.numel() for p in method.trainable_parameters())
    facts = {
        "trainable": trainable,
        "total": sum(p.numel() for p in method.parameters()),
        "frames": store.segments,
        "train_clips": len(split.train),
        "select_clips": len(split.select),
        "test_clips": {test.name: test.n_listed for test in split.tests},
        "classes": {"train": len(split.train_classes)} | {t.name: len(t.classes) for t in split.tests},
        "steps": len(split.train) // config.optim.batch_size * config.optim.epochs if trainable else 0,
        "adapter_bytes": 4 * trainable,
        "weights_digest": _weights_digest(config.backbone.pretrained),
    }
    return Plan(config, split, descriptions, store.digest, facts)


def _batch_problems(config: TrainConfig, split: Split, method: Method | None) -> list[str]:
    """What keeps the training clips from making batches; nothing if nothing trains."""
    optim, pairs = config.optim, bool(config.augment.mixup or config.augment.cutmix)
    if not optim.epochs or (method is not None and not method.trainable_parameters()):
        return []
    if config.scale.workers < 1 or optim.micro_batch < 0 or optim.batch_size < config.scale.workers:
        return []  # told by ``check``
    return batch_problems(len(split.train), optim.batch_size, optim.micro_batch, config.scale.workers, pairs=pairs)


def _misfits(config: TrainConfig, store: ClipStore, split: Split, method: Method) -> list[str]:
    """What is right by itself and wrong together."""
    problems: list[str] = []
    with noted(problems):
        method.set_classes(split.train_classes)
    for test in split.tests:
        with noted(problems):
            method.set_classes(test.classes)
    stored, size = min(store.shape[1:3]), min(method.backbone.spec.image_size)
    if stored < size:
        problems.append(
            f"clips are stored {stored} pixels small but {config.backbone.name} sees {size}; "
            f"ingest again with --size {size}"
        )
    return problems


def _with_absolute_paths(config: TrainConfig, store: ClipStore) -> TrainConfig:
    """Workers run in folders of their own."""
    weights = config.backbone.pretrained
    if weights is not None and weights != "toy" and Path(weights).is_file():
        weights = str(Path(weights).resolve())
    return replace(
        config,
        data=replace(config.data, dir=str(store.folder)),
        backbone=replace(config.backbone, pretrained=weights),
    )


def build_method(config: TrainConfig, *, frames: int, classes: Sequence[str], meta: bool = False) -> Method:
    """Build backbone and method as ``config`` says, for its training's classes; ``meta=True``: shapes only."""
    import torch

    from vlmodels import methods
    from vlmodels.clip import create
    from vlmodels.methods.base import config_from_plain

    cls = methods.get(config.method)
    place = torch.device("meta") if meta else contextlib.nullcontext()
    with place:
        backbone = create(config.backbone.name, weights=None if meta else config.backbone.pretrained, num_frames=frames)
        return cls(backbone, config_from_plain(cls, config.method_config), classes)


def _descriptions(config: TrainConfig, method: Method, split: Split) -> Descriptions | None:
    kinds = method.description_kinds
    if not kinds:
        return None
    if config.text.descriptions is None:
        raise UserError(
            f"{config.method} with these settings trains on {' and '.join(kinds)} descriptions; "
            "make them with pipelines/describe.py and pass --descriptions FILE (or --set method.alpha=0)"
        )
    from llm_descriptions.store import DescriptionStore

    store = DescriptionStore(Path(config.text.descriptions))
    text = config.text
    return store.bank(split.train_classes, kinds, n=text.n, model=text.model, prompt_id=text.prompt_id)


@functools.cache
def code_version() -> str:
    """Digest of the code that computes a run: this package's and ``vlmodels``' sources."""
    import pipelines
    import vlmodels

    digest = hashlib.sha256()
    for package in (pipelines, vlmodels):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _weights_digest(pretrained: str | None) -> str:
    from vlmodels.toy import TOY_WEIGHTS

    path = TOY_WEIGHTS if pretrained == "toy" else Path(pretrained or "")
    if not path.is_file():
        return str(pretrained)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(pretrained: str | None) -> str:
    """Weights as a plan names them, a file by size and hash too."""
    if pretrained is None:
        return "random weights"
    if not Path(pretrained).is_file():
        return pretrained
    return f"{pretrained}, {Path(pretrained).stat().st_size / 1e6:.1f} MB, sha256 {_weights_digest(pretrained)[:12]}"


def describe_plan(plan: Plan) -> str:
    """The resolved run, as ``--dry-run`` prints it."""
    c, f = plan.config, plan.facts
    share = -(-c.optim.batch_size // c.scale.workers)
    lines = [
        f"run        {plan.name}",
        f"backbone   {c.backbone.name} ({_weights(c.backbone.pretrained)}), {f['frames']} frames",
        f"method     {c.method} (preset {c.preset or 'none'}): "
        + ", ".join(f"{k}={v}" for k, v in c.method_config.items()),
        f"trains     {f['trainable']:,} of {f['total']:,} parameters; adapter {f['adapter_bytes'] / 1e6:.1f} MB",
        f"data       {plan.split.source}",
        f"           {f['train_clips']} train, {f['select_clips']} held-out clips of {f['classes']['train']} classes",
        *(
            f"           test '{t.name}': {t.n_listed} videos of {len(t.classes)} classes"
            + (f" ({len(t.unscored)} undecodable, counted as wrong)" if t.unscored else "")
            for t in plan.split.tests
        ),
        *(f"           {note}" for note in plan.notes),
        f"schedule   {c.optim.epochs} epochs, {f['steps']} steps of {c.optim.batch_size} clips "
        f"({c.scale.workers} workers x {share}), lr {c.optim.lr:g}, {c.optim.precision}",
        "augment    " + ", ".join(f"{k}={v}" for k, v in configs.to_plain(c.augment).items()),
        f"views      {c.data.clips} x {c.data.crops} per test video; epoch kept: {c.selection}",
    ]
    return "\n".join(lines)
