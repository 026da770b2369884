"""A run before it starts: everything that can be checked or counted without training, in one place."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import config as configs
from pipelines.checks import check
from pipelines.config import TrainConfig
from pipelines.data.batches import batch_problems, view_positions
from pipelines.data.clipstore import ClipStore
from pipelines.data.keptlists import LISTS
from pipelines.data.lists import kept_dataset
from pipelines.data.shardcache import local_file, local_run
from pipelines.node_facts import sources_digest
from pipelines.protocols import make_split
from pipelines.rundir import about_start
from pipelines.splits import NOTHING, Scoring, Source, Split, clips_of
from pipelines.storage import is_uri
from vlmodels.errors import UserError, noted, refuse

if TYPE_CHECKING:
    from torch import Tensor

    from vlmodels.methods.base import Method

_DRAWN = re.compile(r"fs_base_s\d+_train|train\d+_few_shot_")  # lists that each seed has its own of
Descriptions = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Plan:
    """A checked run: what will be trained, on what, and what it weighs."""

    config: TrainConfig
    split: Split
    descriptions: Descriptions | None
    data_digest: str
    facts: Mapping[str, Any]
    start: Path | None = None  # adapter file that training starts from

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know."""
        from vlmodels import methods

        config, frames, told = self.config, self.facts["frames"], list(self.split.notes)
        if config.preset is not None and self.facts["trainable"] and not self.facts["view_notes"]:
            published = methods.get(config.method).presets[config.preset].recipe.frames
            if published != frames:
                told.append(
                    f"the preset takes {published} frames, these clips have {frames}: ingest with --frames {published}"
                )
        if config.backbone.name.startswith("toy") and not self.split.dataset.startswith("toy"):
            told.append(
                "the toy backbone knows the words and things of the toy world alone: on other data its scores show "
                "that the line works, and nothing of the method"
            )
        return (*told, *self.facts["shard_notes"], *self.facts["start_notes"], *self.facts["view_notes"])

    @property
    def data(self) -> tuple[str, ...]:
        """Folders or URIs of all ingested data that the run reads."""
        return tuple(sorted({self.config.data.dir, *(test.data for test in self.split.tests)} - {""}))

    @property
    def name(self) -> str:
        """Name of the run: equal if it would compute the same, but for what ``ScaleConfig`` says of workers."""
        return self._name([self.config.digest(), self.split.digest])

    @property
    def group(self) -> str:
        """Name of the runs that differ from this one by their seed alone, and so by their training subset."""
        fixed = {name: digest for name, digest in self.split.lists.items() if not _DRAWN.match(name)}
        tests = [(t.name, t.classes, t.content, t.captions) for t in self.split.tests]
        return self._name([replace(self.config, seed=0).digest(), self.split.dataset, fixed, tests])

    def _name(self, own: Sequence[object]) -> str:
        parts = [
            *own,
            self.data_digest,
            configs.digest_of(self.descriptions),
            code_version(),
            weights_digest(self.config.backbone.pretrained),
            hashlib.sha256(self.start.read_bytes()).hexdigest() if self.start else "",
        ]
        return f"{self.split.protocol}-{self.config.method}-{configs.digest_of(parts)[:10]}"


def plan_run(config: TrainConfig) -> Plan:
    """Check ``config`` against the data, the backbone's shape and the descriptions.

    Raises:
        UserError: naming everything that is wrong, at once where several things can be seen together.
    """
    from vlmodels.clip import check_weights
    from vlmodels.describe import gmacs

    problems = check(config)
    stores: list[ClipStore] = []
    split = method = descriptions = None
    start = None
    with noted(problems):
        check_weights(config.backbone.name, config.backbone.pretrained)
    if config.data.dir or config.protocol.tests:
        with noted(problems):
            stores, sources = _sources(config)
            config = _with_absolute_paths(config, stores[0])
            data, *tests = sources if config.data.dir else [NOTHING, *sources]
            if config.seed >= 0:  # ``check`` has told otherwise
                split = make_split(config.protocol, data, config.seed, tests=tests, scoring=_scoring(config, stores[0]))
                split = _anywhere(split, stores)
    if stores and split is not None:
        for store in stores:
            with noted(problems):
                view_positions(store.offsets, config.data.clips)
        if config.start is not None:
            with noted(problems):
                start = start_file(config.start)
        with noted(problems):
            method = build_method(config, frames=stores[0].segments, classes=classes_of(split), meta=True)
        problems += _batch_problems(config, split, method)
        if method is not None:
            problems += _misfits(config, stores, split, method)
            with noted(problems):
                descriptions = _descriptions(config, method, split)
    if problems or not stores or split is None or method is None:
        raise UserError("; ".join(dict.fromkeys(problems)))
    trainable = sum(p.numel() for p in method.trainable_parameters())
    facts = {
        "trainable": trainable,
        "total": sum(p.numel() for p in method.parameters()),
        "frames": stores[0].segments,
        "train_clips": len(split.train),
        "select_clips": len(split.select),
        "test_clips": {test.name: test.n_listed for test in split.tests},
        "classes": {"train": len(split.train_classes)} | {t.name: len(t.classes) for t in split.tests},
        "steps": len(split.train) // config.optim.batch_size * config.optim.epochs if trainable else 0,
        "adapter_bytes": 4 * trainable,
        "weights_digest": weights_digest(config.backbone.pretrained),
        "view_notes": _view_notes(config, split),
        "shard_notes": _shard_notes(config.scale.workers, stores[0], split) if trainable else [],
        "start_notes": _start_notes(start, stores),
        "gmacs_video": round(gmacs(method.eval().encode_video, _one_clip(method, stores[0].segments)), 3),
    }
    digest = stores[0].digest if len(stores) == 1 else configs.digest_of([store.digest for store in stores])
    return Plan(config, split, descriptions, digest, facts, start)


def _sources(config: TrainConfig) -> tuple[list[ClipStore], list[Source]]:
    """The ingested data sets: the one that trains first (if there is one), then those that are only scored."""
    named = [("", config.data.dir)] if config.data.dir else []
    named += [named_test(item) for item in config.protocol.tests]
    stores = [ClipStore(folder) for _, folder in named]
    sources: list[Source] = []
    for (name, _), store in zip(named, stores, strict=True):
        title = name or (config.protocol.dataset if not sources else "") or kept_dataset(store.folder / LISTS)
        sources.append(Source(title or store.name, str(store.folder), clips_of(store.manifest), store.classes))
    problems = [
        f"{store.uri} has {store.segments} frames a clip and {stores[0].uri} {stores[0].segments}: ingest both "
        "with the same --frames"
        for store in stores[1:]
        if store.segments != stores[0].segments
    ]
    problems += [
        f"{store.uri} is sampled in {store.sampling} (stride {store.stride}), {stores[0].uri} in "
        f"{stores[0].sampling} (stride {stores[0].stride}): ingest both with the same --sampling and --stride"
        for store in stores[1:]
        if (store.sampling, store.stride) != (stores[0].sampling, stores[0].stride)
    ]
    names = [source.name for source in sources]
    problems += [f"two data sets are called {name}: write NAME=DIR" for name in set(names) if names.count(name) > 1]
    refuse(problems)
    return stores, sources


def _anywhere(split: Split, stores: Sequence[ClipStore]) -> Split:
    """Test sets by what opens their data on any machine, not by the copies on this one."""
    uris = {str(store.folder): store.uri for store in stores}
    return replace(split, tests=tuple(replace(test, data=uris.get(test.data, test.data)) for test in split.tests))


def classes_of(split: Split) -> tuple[str, ...]:
    """Classes that a method is built for: those that train, else those that are scored first; none for retrieval."""
    return split.train_classes or split.tests[0].classes


def _scoring(config: TrainConfig, store: ClipStore) -> Scoring:
    return Scoring(
        frames=store.segments,
        clips=config.data.clips,
        crops=config.data.crops,
        sampling=store.sampling,
        stride=store.stride,
        short_side=min(store.shape[1:3]),
        average="features" if config.protocol.name == "retrieval" else "softmax",
    )


def _view_notes(config: TrainConfig, split: Split) -> list[str]:
    """Whether the scoring looks at videos as the method's paper does."""
    from pipelines.views import note

    assert split.scoring is not None
    return note(config.method, config.protocol.name, split.dataset, split.scoring)


def _shard_notes(workers: int, store: ClipStore, split: Split) -> list[str]:
    if workers == 1 or not split.train:  # the usual run, and a trial of a sweep, look nothing up
        return []
    shards = len({store.place(example.clip_id)[0] for example in split.train})
    return [f"more workers ({workers}) than shards ({shards}): several read the same one"] * (workers > shards)


def _start_notes(start: Path | None, stores: Sequence[ClipStore]) -> list[str]:
    about = about_start(start)
    return [
        f"{about['name']}, from which this starts, was trained on {store.name}: its training videos may be "
        "among those scored"
        for store in stores
        if about and about["data_digest"] == store.digest and about["protocol"] != "zero_shot"
    ]


def start_file(start: str) -> Path:
    """The adapter file of a run's folder or URI, or of a registered model.

    Raises:
        UserError: there is none, or there are several.
    """
    from vlmodels.checkpoint import ADAPTER
    from vlmodels.predictor import model_folder

    folder = model_folder(local_run(start))
    found = [folder / ADAPTER] if (folder / ADAPTER).is_file() else sorted(folder.rglob(ADAPTER))
    if len(found) != 1:
        what = f"{len(found)} of them" if found else f"no {ADAPTER}"
        raise UserError(f"{start}: {what} to start from; give the folder of one run, or models:/NAME@ALIAS")
    return found[0]


def _one_clip(method: Method, frames: int) -> Tensor:
    import torch

    return torch.empty(1, frames, 3, *method.backbone.spec.image_size, device="meta")


def _batch_problems(config: TrainConfig, split: Split, method: Method | None) -> list[str]:
    """What keeps the training clips from making batches; nothing if nothing trains."""
    optim, pairs = config.optim, bool(config.augment.mixup or config.augment.cutmix)
    if not optim.epochs or (method is not None and not method.trainable_parameters()):
        return []
    if not split.train:
        return [
            "nothing to train on: zero_shot trains on --data and scores other data (--test DIR); to score without "
            "training set optim.epochs=0, with --start RUN for a model that is trained already"
        ]
    workers, parts = config.scale.workers, config.data.parts
    if workers < 1 or optim.micro_batch < 0 or optim.batch_size < max(workers, parts) or 1 < parts < workers:
        return []  # told by ``check``
    for world in range(config.scale.min_workers or workers, workers + 1):  # an elastic run may have any of these
        if told := batch_problems(
            len(split.train), optim.batch_size, optim.micro_batch, world, parts=parts, pairs=pairs
        ):
            return told
    return []


def _misfits(config: TrainConfig, stores: Sequence[ClipStore], split: Split, method: Method) -> list[str]:
    """What is right by itself and wrong together."""
    problems: list[str] = []
    for names in (split.train_classes, *(test.classes for test in split.tests)):
        if names:
            with noted(problems):
                method.set_classes(names)
    if split.captions:
        from pipelines.pairs import pair_problems

        problems += pair_problems(config, method)
    size = min(method.backbone.spec.image_size)
    problems += [
        f"the clips of {store.uri} are stored {min(store.shape[1:3])} pixels small but {config.backbone.name} sees "
        f"{size}; ingest again with --size {size}"
        for store in stores
        if min(store.shape[1:3]) < size
    ]
    return problems


def _with_absolute_paths(config: TrainConfig, store: ClipStore) -> TrainConfig:
    """Workers run in folders of their own."""
    weights = config.backbone.pretrained
    if weights is not None and weights != "toy" and Path(weights).is_file():
        weights = str(Path(weights).resolve())
    return replace(
        config,
        data=replace(config.data, dir=store.uri if config.data.dir else ""),
        protocol=replace(config.protocol, tests=tuple(map(_absolute_test, config.protocol.tests))),
        start=str(Path(config.start).resolve()) if config.start and Path(config.start).exists() else config.start,
        backbone=replace(config.backbone, pretrained=weights),
    )


def named_test(item: str) -> tuple[str, str]:
    """Name ("" if none is given) and folder or URI of ``NAME=DIR`` or ``DIR``."""
    name, equals, folder = item.partition("=")
    return ("", item) if not equals or is_uri(name) or Path(item).is_dir() else (name, folder)


def _absolute_test(item: str) -> str:
    name, folder = named_test(item)
    place = folder if is_uri(folder) else str(Path(folder).resolve())
    return f"{name}={place}" if name else place


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
    if not kinds or not split.train or not config.optim.epochs or not split.train_classes:
        return None
    if config.text.descriptions is None:
        raise UserError(
            f"{config.method} with these settings trains on {' and '.join(kinds)} descriptions; "
            "make them with pipelines/describe.py and pass --descriptions FILE (or --set method.alpha=0)"
        )
    from llm_descriptions.store import DescriptionStore

    path = local_file(config.text.descriptions)
    if not path.is_file():
        raise UserError(f"--descriptions {config.text.descriptions}: no such file; pipelines/describe.py makes one")
    store = DescriptionStore(path)
    text = config.text
    return store.bank(split.train_classes, kinds, n=text.n, model=text.model, prompt_id=text.prompt_id)


@functools.cache
def code_version() -> str:
    """Digest of the code that computes a run: this package's and ``vlmodels``' sources."""
    return sources_digest()


@functools.cache
def weights_digest(pretrained: str | None) -> str:
    """SHA-256 of a weight file; a tag is its own."""
    from vlmodels.toy import TOY_WEIGHTS

    path = TOY_WEIGHTS if pretrained == "toy" else Path(pretrained or "")
    if not path.is_file():
        return str(pretrained)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
